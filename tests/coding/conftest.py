"""What tests of coding whole data sets share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from torch import Tensor

from flowmo.data import to_uint8


@pytest.fixture(scope="session")
def data(photographs: Callable[[str, int], Tensor], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A hundred photographs of 32 pixels, as an array."""
    path = tmp_path_factory.mktemp("data") / "photographs.npy"
    np.save(path, to_uint8(photographs("train", 100)).permute(0, 2, 3, 1).numpy())
    return path
