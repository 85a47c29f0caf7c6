"""Fixtures shared by all tests: where the photographs and the golden vectors lie, when they are there at all."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

SHARED = Path(os.environ.get("FLOWMO_SHARED", Path(__file__).parents[2] / "shared"))


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder beside the project with data/ and golden/; tests that need it skip where it is absent."""
    if not SHARED.is_dir():
        pytest.skip(f"needs the photographs and golden vectors at {SHARED} (or FLOWMO_SHARED)")
    return SHARED


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)
