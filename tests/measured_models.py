"""Fixtures that the tests of evaluation, comparison and experiments share: a small model, and the packaged images as a
data set. The conftest.py of each folder imports those that its tests use."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch import nn

from flowmo import samples
from flowmo.data import ImageSource, open_images
from flowmo.presets import tiny
from flowmo.tokenizer import FlowMo


@pytest.fixture
def model(lively: Callable[[nn.Module], nn.Module]) -> FlowMo:
    """32 x 32 pixels, 16 tokens of 18 bits; its pictures depend on its tokens and on the noise."""
    torch.manual_seed(1)
    return lively(FlowMo(tiny()))


@pytest.fixture
def pictures() -> ImageSource:
    return open_images(samples.paths()[0].parent)


@pytest.fixture
def render_readme() -> ModuleType:
    """tools/render_readme.py"""
    path = Path(__file__).parents[1] / "tools" / "render_readme.py"
    specification = importlib.util.spec_from_file_location("render_readme", path)
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of its own for features of originals."""
    monkeypatch.setenv("FLOWMO_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"
