"""Data sets of Hugging Face through their own package, where that is installed, and what is said where it is not."""

from __future__ import annotations

import pickle
import sys
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from flowmo import samples
from flowmo.data import BatchLoader, open_images
from flowmo.errors import DataError, ImageError

PHOTOS = samples.paths()


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """The package, which may not ask the network."""
    package = pytest.importorskip("datasets", reason="needs the package datasets, which is no requirement")
    monkeypatch.setattr(package.config, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(package.config, "HF_DATASETS_CACHE", tmp_path / "hub")
    return package


def rows(hub: Any, files: list[Path], column: str = "image") -> Any:
    images = [{"bytes": file.read_bytes(), "path": file.name} for file in files]
    features = hub.Features({column: hub.Image(), "label": hub.ClassLabel(names=["a", "b", "c"])})
    return hub.Dataset.from_dict({column: images, "label": [k % 3 for k in range(len(files))]}, features)


def test_a_saved_data_set(hub: Any, tmp_path: Path) -> None:
    rows(hub, PHOTOS, "picture").save_to_disk(tmp_path / "saved")
    source = open_images(tmp_path / "saved")
    assert source.describe() == f"8 images in {tmp_path / 'saved'}, 3 classes"
    assert [source.name(i) for i in range(8)] == [path.name for path in PHOTOS]
    assert [source.label(i) for i in range(8)] == [0, 1, 2, 0, 1, 2, 0, 1]
    assert [source[i].tobytes() for i in range(8)] == [Image.open(p).convert("RGB").tobytes() for p in PHOTOS]
    assert len(open_images(tmp_path / "saved", limit=3)) == 3
    assert pickle.loads(pickle.dumps(source))[7].tobytes() == source[7].tobytes()


def test_splits_and_training(hub: Any, tmp_path: Path) -> None:
    parts = hub.DatasetDict(train=rows(hub, PHOTOS[:6]), validation=rows(hub, PHOTOS[6:]))
    parts.save_to_disk(tmp_path / "saved")
    with pytest.raises(DataError, match=r"train, validation.*name one"):
        open_images(tmp_path / "saved")
    with pytest.raises(DataError, match=r"no split 'test'; it has train, validation"):
        open_images(tmp_path / "saved", split="test")
    assert len(open_images(tmp_path / "saved", split="validation")) == 2
    runs = []
    for workers in (0, 2):
        with BatchLoader(open_images(tmp_path / "saved", split="train"), 4, 32, seed=0, workers=workers) as loader:
            runs.append(list(islice(loader, 4)))
    assert all(torch.equal(one.images, other.images) for one, other in zip(*runs, strict=True))


def test_by_name_as_on_the_hub(hub: Any, tmp_path: Path) -> None:
    """A folder stands for a data set of the hub: its package finds both the same way."""
    for split, files in (("train", PHOTOS[:5]), ("validation", PHOTOS[5:])):
        rows(hub, files).to_parquet(tmp_path / "set" / f"{split}-00000-of-00001.parquet")
    source = open_images(f"hf:{tmp_path / 'set'}", split="train")
    assert len(source) == 5
    assert source[4].tobytes() == Image.open(PHOTOS[4]).convert("RGB").tobytes()
    assert len(open_images(f"hf:{tmp_path / 'set'}:default", split="validation")) == 3
    for name in (f"hf:{tmp_path / 'nowhere'}", f"hf:{tmp_path / 'set'}:other"):
        with pytest.raises(DataError, match="cannot load it"):
            open_images(name, split="train")


def test_what_has_no_pictures(hub: Any, tmp_path: Path) -> None:
    hub.Dataset.from_dict({"text": ["a"]}).save_to_disk(tmp_path / "saved")
    with pytest.raises(DataError, match="no column of images; its columns are text"):
        open_images(tmp_path / "saved")
    features = hub.Features({"image": hub.Image()})
    hub.Dataset.from_dict({"image": [{"bytes": b"x", "path": None}, None]}, features).save_to_disk(tmp_path / "bad")
    source = open_images(tmp_path / "bad")
    for index, words in ((0, "bad:0: not a picture"), (1, "bad:1: .*no bytes")):
        with pytest.raises(ImageError, match=words):
            source[index]


def test_versions_that_run_code_of_a_data_set(hub: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows(hub, PHOTOS[:1]).save_to_disk(tmp_path / "saved")
    monkeypatch.setattr(hub, "__version__", "3.6.0")
    with pytest.raises(DataError, match="needs datasets 4 or newer"):
        open_images(tmp_path / "saved")


def test_without_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    (tmp_path / "state.json").write_text("{}")
    for where in ("hf:someone/photos", tmp_path):
        with pytest.raises(DataError, match="needs the package datasets: pip install datasets"):
            open_images(where)
