"""Fixtures of the tests that run trainings."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import run_support
import torch
from torch import Tensor

from flowmo.cli.main import main
from flowmo.data import to_uint8
from flowmo.training import loop

torch.set_num_threads(1)  # as processes that tests start: rounding differs between one thread and several


@pytest.fixture(scope="session")
def data(photographs: Callable[[str, int], Tensor], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A hundred photographs of 32 pixels, as an array."""
    path = tmp_path_factory.mktemp("data") / "photographs.npy"
    np.save(path, to_uint8(photographs("train", 100)).permute(0, 2, 3, 1).numpy())
    return path


@pytest.fixture(scope="session")
def whole(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run that nothing interrupted. Tests only look at it."""
    folder = tmp_path_factory.mktemp("runs") / "whole"
    run_support.finish(run_support.start(run_support.command(data, folder, **run_support.SELDOM)))
    return folder


@pytest.fixture(scope="session")
def three_steps(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished run of three steps, with a checkpoint of each. Tests only look at it."""
    folder = tmp_path_factory.mktemp("runs") / "three-steps"
    settings = {"images": 3 * run_support.BATCH, "cooldown_images": 0, "workers": 0}
    assert main(run_support.command(data, folder, **settings)) == 0
    return folder


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A run without any time ends its first update, however long a busy machine takes for it."""
    monkeypatch.setattr(loop, "LATE", math.inf)
