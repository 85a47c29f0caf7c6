"""Images of a data set as tensors: the split that is meant, places, broken files, batches spread over all of it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from flowmo.data import SplitError, SpreadImages, open_images, open_split, read_first, read_images
from flowmo.errors import DataError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Six grey images of 8 x 8 pixels, of which the third is broken."""
    for i in range(6):
        Image.fromarray(np.full((8, 8, 3), 40 * i, np.uint8)).save(tmp_path / f"{i}.png")
    (tmp_path / "2.png").write_bytes(b"no picture")
    return tmp_path


def test_the_usual_split_is_taken_where_there_are_splits(folder: Path, tmp_path: Path) -> None:
    assert open_split(folder, None, "validation")[1] is None
    with pytest.raises(SplitError):
        open_split(folder, "validation", "validation")
    for split in ("train", "validation"):
        (tmp_path / "both" / split).mkdir(parents=True)
        Image.new("RGB", (8, 8)).save(tmp_path / "both" / split / "a.png")
    assert open_split(tmp_path / "both", None, "validation")[1] == "validation"
    assert open_split(tmp_path / "both", "train", "validation")[1] == "train"


def test_broken_images_are_named_and_left_out(folder: Path) -> None:
    bad: list[str] = []
    found = read_first(
        str(folder), None, (4, 4), lambda name, error: bad.append(name), count=3, skip=1, eight_bits=True
    )
    assert (found.names, found.places, bad) == (["1.png", "3.png"], [1, 3], ["2.png"])
    assert found.images.dtype == torch.uint8
    assert found.images[:, 0, 0, 0].tolist() == [40, 120]


def test_so_many_good_images_are_enough(folder: Path) -> None:
    source = open_images(folder)
    found = read_images(source, (8, 8), range(6), lambda name, error: None, most=3)
    assert found.places == [0, 1, 3]
    assert found.images.shape == (3, 3, 8, 8)
    assert found.images.min() == -1
    with pytest.raises(DataError, match="none of the pictures can be read"):
        read_images(source, (8, 8), [2], lambda name, error: None)


def test_spread_images_are_the_same_at_every_call(folder: Path) -> None:
    spread = SpreadImages(open_images(folder), 8, count=3, batch_size=2)
    first, again = list(spread()), list(spread())
    assert list(spread.bad) == ["2.png"]
    assert spread.used == 2
    assert [len(batch) for batch in first] == [2]
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
