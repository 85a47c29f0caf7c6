"""Tars, Parquet files and archives of arrays that would hang or take gigabytes, and labels of every type in each."""

from __future__ import annotations

import io
import json
import os
import tarfile
import time
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from flowmo import Tokens
from flowmo.data import open_images
from flowmo.data.tar_index import read_index
from flowmo.errors import DataError, TokenFileError
from flowmo.evaluation.generated import read_samples
from flowmo.image_utils import notes
from flowmo.labels import whole_labels
from flowmo.untrusted import load_arrays


@pytest.fixture(autouse=True)
def nothing_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    notes._said.clear()
    monkeypatch.setenv("FLOWMO_CACHE", str(tmp_path / "cache"))


def picture(value: int = 1) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8), (value, 0, 0)).save(buffer, "PNG")
    return buffer.getvalue()


def tar_of(**members: bytes) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, data in members.items():
            member = tarfile.TarInfo(name.replace("_", "."))
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return buffer.getvalue()


def test_a_tar_that_may_not_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    (tmp_path / "a.tar").write_bytes(tar_of(a_png=picture()))
    monkeypatch.setattr("builtins.open", refuse)
    with pytest.raises(DataError, match=r"a\.tar: may not be read; check its permissions"):
        read_index(tmp_path / "a.tar")


def labels(path: Path) -> list[int | None]:
    source = open_images(path)
    return [source.label(i) for i in range(len(source))]


WRITTEN: list[tuple[Any, int | None]] = [
    (3, 3), (3.0, 3), ("3", 3), (True, 1), ("007", 7), (None, None), (-1, None), ("cat", None), (1.5, None), ([3], None)
]  # fmt: skip


@pytest.mark.parametrize(("written", "label"), WRITTEN)
def test_labels_in_json_of_every_type(
    written: Any, label: int | None, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    text = json.dumps({"label": written}).encode()
    (tmp_path / "a.tar").write_bytes(tar_of(a_png=picture(), a_json=text, b_png=picture(), b_cls=b"1"))
    assert labels(tmp_path / "a.tar") == [label, 1]
    assert ("left out" in caplog.text) == (written in ("cat", 1.5, [3]))


@pytest.mark.parametrize(
    ("text", "label"), [(b"007", 7), (b" 3\n", 3), (b"3.0", 3), (b'"3"', 3), (b"cat", None), (b"", None)]
)
def test_labels_in_cls_as_people_write_them(
    text: bytes, label: int | None, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "a.tar").write_bytes(tar_of(a_png=picture(), a_cls=text))
    assert labels(tmp_path / "a.tar") == [label]
    assert ("a.cls" in caplog.text) == (label is None)


def test_a_label_of_a_thousand_digits_is_no_class(tmp_path: Path) -> None:
    (tmp_path / "a.tar").write_bytes(tar_of(a_png=picture(), a_cls=b"9" * 5000))
    with pytest.raises(DataError, match="no class"):
        open_images(tmp_path / "a.tar")


def test_a_label_beside_much_else(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for size, label in ((100_000, 3), (2_000_000, None)):
        text = json.dumps({"caption": "x" * size, "label": 3}).encode()
        (tmp_path / f"{size}.tar").write_bytes(tar_of(a_png=picture(), a_json=text))
        assert labels(tmp_path / f"{size}.tar") == [label]
    assert "a.json" in caplog.text


def test_headers_of_digits_do_not_hang(tmp_path: Path) -> None:
    header = tarfile.TarInfo("pax")
    header.type, header.size = b"x", 2**19
    (tmp_path / "a.tar").write_bytes(header.tobuf() + b"1" * 2**19 + tar_of(a_png=picture()))
    began = time.monotonic()
    with pytest.raises(DataError, match="digits"):
        open_images(tmp_path / "a.tar")
    assert time.monotonic() - began < 30  # before: 26 s for 50 kB on a busy machine, and that in its square


def test_what_follows_the_end_of_a_tar_is_not_left_out(tmp_path: Path) -> None:
    one, other = tar_of(a_png=picture()), tar_of(b_png=picture())
    (tmp_path / "a.tar").write_bytes(one + other)
    with pytest.raises(DataError, match="two tars put together"):
        open_images(tmp_path / "a.tar")
    (tmp_path / "b.tar").write_bytes(one + bytes(2**21 + 3))
    assert len(open_images(tmp_path / "b.tar")) == 1


@pytest.mark.parametrize(
    ("column", "expected"),
    [
        ([0.0, 1.0, float("nan"), 2.0], [0, 1, None, 2]),
        ([True, False, True, False], [1, 0, 1, 0]),
        (["1", "2", None, "4"], [1, 2, None, 4]),
        (["cat", "dog", "1", "4"], [None] * 4),
        ([0.5, 1.0, 2.0, 3.0], [None] * 4),
        ([[0], [1], [2], []], [None] * 4),
        ([None] * 4, [None] * 4),
    ],
    ids=["float", "bool", "digits", "names", "halves", "lists", "nothing"],
)
def test_label_columns_of_every_type(
    column: list[Any], expected: list[int | None], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    pq.write_table(pa.table({"image": [picture(k) for k in range(4)], "label": column}), tmp_path / "a.parquet")
    assert labels(tmp_path / "a.parquet") == expected
    assert ("left out" in caplog.text) == (expected == [None] * 4 and column != [None] * 4)


@pytest.mark.parametrize("part", ["bytes", "path"])
def test_values_that_unpack_to_hundreds_of_megabytes_are_refused(part: str, tmp_path: Path) -> None:
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    long: dict[str, Any] = {"bytes": picture(), "path": "a.png"}
    long[part] = picture() + bytes(100 * 2**20) if part == "bytes" else "x" * (100 * 2**20)
    pq.write_table(pa.table({"image": [long]}), tmp_path / "a.parquet", compression="zstd")
    assert (tmp_path / "a.parquet").stat().st_size < 2**17
    with pytest.raises(DataError, match="claim to hold 104,8"):
        open_images(tmp_path / "a.parquet")


def test_names_of_classes_that_no_file_can_hold(tmp_path: Path) -> None:
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    for number, names in enumerate((["\ud800", "b"], None)):
        said = json.dumps({"info": {"features": {"label": {"names": names}}}}) if names else "[" * 100_000
        table = pa.table({"image": [picture()], "label": [1]}).replace_schema_metadata({"huggingface": said})
        pq.write_table(table, tmp_path / f"{number}.parquet")
        source = open_images(tmp_path / f"{number}.parquet")
        assert source.label(0) == 1
        assert source.classes is None  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", ["a.labels.npy", "a.labels.txt"])
def test_labels_that_cannot_be_read_are_not_passed_over(name: str, tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.zeros((2, 4, 4, 3), np.uint8))
    (tmp_path / "a.tar").write_bytes(tar_of(a_png=picture()))
    opened = tmp_path / ("a.npy" if name.endswith("npy") else "a.tar")
    for make in (os.mkfifo, lambda path: path.symlink_to("nowhere")):
        make(tmp_path / name)
        with pytest.raises(DataError, match=name):
            open_images(opened)
        (tmp_path / name).unlink()


def test_labels_of_arrays(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.zeros((2, 4, 4, 3), np.uint8))
    for values in (np.array([1.0, np.nan]), np.array([True, False]), np.array(["3", "4"])):
        np.save(tmp_path / "a.labels.npy", values)
        expected = whole_labels(values)
        assert expected is not None
        assert labels(tmp_path / "a.npy") == [None if v < 0 else v for v in expected.tolist()]
    for kind in ("m8[s]", "m8", "c8"):
        np.save(tmp_path / "a.labels.npy", np.array([1, 2], kind))
        with pytest.raises(DataError, match="2 integers"):
            open_images(tmp_path / "a.npy")


class TestArchivesOfArrays:
    def archive(self, path: Path, encrypted: bool = False, **arrays: np.ndarray) -> Path:
        np.savez_compressed(path, **arrays)  # type: ignore[arg-type]
        if encrypted:
            data = bytearray(path.read_bytes())
            for mark, place in ((b"PK\3\4", 6), (b"PK\1\2", 8)):
                data[data.index(mark) + place] |= 1
            path.write_bytes(data)
        return path

    def test_a_bomb_is_refused(self, tmp_path: Path) -> None:
        path = self.archive(tmp_path / "a.npz", arr_0=np.zeros((1500, 256, 256, 3), np.uint8))
        with pytest.raises(DataError, match="claim to hold 294,9"):
            read_samples(path)

    @pytest.mark.parametrize("reader", [read_samples, Tokens.load])
    def test_pipes_passwords_and_other_files(self, reader: Any, tmp_path: Path) -> None:
        os.mkfifo(tmp_path / "pipe.npz")
        self.archive(tmp_path / "secret.npz", encrypted=True, arr_0=np.zeros((1, 8, 8, 3), np.uint8))
        with zipfile.ZipFile(tmp_path / "header.npz", "w") as archive:
            archive.writestr("arr_0.npy", b"\x93NUMPY\1\0\x10\0" + b"(" * 16)
        (tmp_path / "none.npz").write_bytes(b"none")
        for name in ("pipe", "secret", "header", "none", "nothing"):
            with pytest.raises((DataError, TokenFileError), match=name):
                reader(tmp_path / f"{name}.npz")

    def test_labels_are_checked(self, tmp_path: Path) -> None:
        pixels = np.zeros((2, 8, 8, 3), np.uint8)
        for wrong in (np.array([0, 2**40]), np.array([0.5, 1.0]), np.array([-2, 1])):
            np.savez(tmp_path / "a.npz", arr_0=pixels, arr_1=wrong)
            with pytest.raises(DataError, match="arr_1"):
                read_samples(tmp_path / "a.npz")

    def test_arrays_come_back(self, tmp_path: Path) -> None:
        path = self.archive(tmp_path / "a.npz", a=np.arange(3), b=np.ones(2))
        assert load_arrays(path, ("a", "c")).keys() == {"a"}
        assert load_arrays(path)["b"].tolist() == [1, 1]
