"""Photographs and networks for the perceptual tests."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from flowmo.errors import WeightsError
from flowmo.perceptual import LPIPS, load_lpips


@pytest.fixture(scope="session")
def photos(shared: Path) -> Tensor:
    """Six held-out photographs of different sources, (6, 3, 128, 128) in [-1, 1]."""
    parquet = pytest.importorskip("pyarrow.parquet")
    table = parquet.read_table(shared / "data/photos256/validation-00000-of-00001.parquet", columns=["image"])
    images = []
    for row in range(0, 900, 150):
        content = table["image"][row].as_py()["bytes"]
        image = Image.open(io.BytesIO(content)).convert("RGB").resize((128, 128), Image.Resampling.LANCZOS)
        images.append(torch.from_numpy(np.array(image)).permute(2, 0, 1))
    return torch.stack(images).float() / 127.5 - 1


def _load(network) -> LPIPS:
    try:
        return load_lpips(network)
    except WeightsError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def vgg() -> LPIPS:
    return _load("vgg")


@pytest.fixture(scope="session")
def alex() -> LPIPS:
    return _load("alex")


@pytest.fixture(params=["vgg", "alex"])
def network(request: pytest.FixtureRequest) -> LPIPS:
    return request.getfixturevalue(request.param)
