"""What a command is given to code: pictures in folders, whose names may be classes, or a data set with labels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from flowmo.data.given import labels_of, open_given
from flowmo.errors import ConfigError, DataError


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    for name in ("cat/a.png", "cat/b.png", "dog/c.png"):
        path = tmp_path / "photos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8)).save(path)
    return tmp_path / "photos"


def test_folders_are_classes_where_that_is_said(photos: Path) -> None:
    plain = open_given([str(photos)])
    assert labels_of(plain.source) is None
    assert plain.classes is None
    assert [path.name for path in plain.paths] == ["a.png", "b.png", "c.png"]
    classed = open_given([str(photos)], folders_are_classes=True)
    assert labels_of(classed.source) == [0, 0, 1]
    assert classed.classes == ["cat", "dog"]
    assert len(open_given([str(photos)], limit=2).source) == 2
    with pytest.raises(ConfigError, match="--split is for a data set"):
        open_given([str(photos), str(photos)], split="train")


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (("train/cat/a.png", "train/dog/b.png", "val/dog/c.png"), "train, validation"),
        (("train/a.png", "val/b.png"), "train, validation"),
        (("Val/cat/a.png", "test/cat/b.png"), "test, validation"),
        (("train/cat/a.png", "val/cat/b.png", "more/cat/c.png"), "train, validation"),
        (("train/cat/a.png", "train/dog/b.png"), "train"),
    ],
)
def test_splits_are_no_classes(tmp_path: Path, names: tuple[str, ...], said: str) -> None:
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8)).save(tmp_path / name)
    for given in ([str(tmp_path)], [str(tmp_path / "*")]):
        with pytest.raises(DataError, match=rf"splits \({said}\), not classes.*--split"):
            open_given(given, folders_are_classes=True)
    if len(names[0].split("/")) > 2 and names[0].startswith("train"):
        assert open_given([str(tmp_path)], "train").classes == sorted({n.split("/")[1] for n in names if "train" in n})


def test_a_class_may_have_the_name_of_a_split(tmp_path: Path) -> None:
    for name in ("train/a.png", "bus/b.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8)).save(tmp_path / name)
    assert open_given([str(tmp_path)], folders_are_classes=True).classes == ["bus", "train"]


def test_a_data_set_brings_its_labels(tmp_path: Path) -> None:
    np.save(tmp_path / "set.npy", np.zeros((3, 8, 8, 3), np.uint8))
    np.save(tmp_path / "set.labels.npy", np.array([2, 0, 1]))
    found = open_given([str(tmp_path / "set.npy")])
    assert found.paths == []
    assert labels_of(found.source) == [2, 0, 1]


def test_labels_of_a_file_and_labels_that_are_not_whole(photos: Path, tmp_path: Path) -> None:
    source = open_given([str(photos)]).source
    file = tmp_path / "labels.txt"
    file.write_text("4\n5\n6\n")
    assert labels_of(source, file) == [4, 5, 6]
    source.labels = [1, None, 2]  # type: ignore[attr-defined]
    with pytest.raises(DataError, match="1 of 3 pictures have no label"):
        labels_of(source)
