"""What a run can tell about its data when it is resumed: one more, one fewer, renamed, relabelled."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

from flowmo import samples
from flowmo.data import DataFingerprint, changes, fingerprint_of, open_images


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for k, path in enumerate(samples.paths()):
        target = tmp_path / "data" / f"class{k % 2}" / f"{k}.jpg"
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, target)
    return tmp_path / "data"


def test_nothing_changed(folder: Path) -> None:
    before, now = fingerprint_of(open_images(folder)), fingerprint_of(open_images(folder))
    assert changes(before, now) == ""
    assert changes(before, DataFingerprint.from_dict(json.loads(json.dumps(now.to_dict())))) == ""


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda d: shutil.copy(d / "class0" / "0.jpg", d / "class0" / "new.jpg"), "9 images where there were 8"),
        (lambda d: (d / "class0" / "0.jpg").unlink(), "7 images where there were 8"),
        (lambda d: (d / "class0" / "0.jpg").rename(d / "class0" / "x.jpg"), "of other names"),
        (lambda d: (d / "class0" / "0.jpg").rename(d / "class1" / "0.jpg"), "of other names"),
        (lambda d: (d / "class0" / "0.jpg").rename(d / "class0" / os.fsdecode(b"\xff.jpg")), "of other names"),
    ],
    ids=["one more", "one fewer", "renamed", "moved", "no UTF-8"],
)
def test_what_changed_is_said(folder: Path, change: object, words: str) -> None:
    before = fingerprint_of(open_images(folder))
    change(folder)  # type: ignore[operator]
    assert words in changes(before, fingerprint_of(open_images(folder)))


def test_labels_classes_and_order(folder: Path) -> None:
    source = open_images(folder)
    before = fingerprint_of(source)
    source.labels = source.labels[::-1].copy()  # type: ignore[attr-defined]
    assert "other labels" in changes(before, fingerprint_of(source))
    source = open_images(folder)
    source.classes = ["a", "b"]  # type: ignore[attr-defined]
    assert "classes have other names" in changes(before, fingerprint_of(source))


def test_what_is_no_fingerprint() -> None:
    for values in (None, {}, [], {"images": "8"}):
        assert DataFingerprint.from_dict(values) is None
