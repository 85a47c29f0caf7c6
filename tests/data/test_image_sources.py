"""Data sets by path: folders, Parquet files, arrays, splits, and what is said when one is not there."""

from __future__ import annotations

import io
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from flowmo import samples
from flowmo.data import open_images, parquet
from flowmo.data.given import open_given
from flowmo.errors import ConfigError, DataError, ImageError

PHOTOS = samples.paths()


def pixels(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path).convert("RGB"))


def write_parquet(path: Path, files: list[Path], **columns: list[object]) -> None:
    pa = pytest.importorskip("pyarrow")
    pq = pytest.importorskip("pyarrow.parquet")
    images = [{"bytes": f.read_bytes(), "path": f.name} for f in files]
    path.parent.mkdir(exist_ok=True, parents=True)
    pq.write_table(pa.table({"image": images, **columns}), path)


class TestFolder:
    def test_sorted_and_without_labels_when_flat(self, tmp_path: Path) -> None:
        for path in reversed(PHOTOS):
            (tmp_path / path.name).write_bytes(path.read_bytes())
        (tmp_path / "notes.txt").write_text("x")
        source = open_images(tmp_path)
        assert [source.name(i) for i in range(len(source))] == [p.name for p in PHOTOS]
        assert source.label(0) is None
        assert all(np.array_equal(np.asarray(source[i]), pixels(p)) for i, p in enumerate(PHOTOS))
        assert source.describe().startswith("8 image files")
        assert len(open_images(tmp_path, limit=3)) == 3

    def test_class_folders_give_labels_that_no_limit_changes(self, tmp_path: Path) -> None:
        for k, path in enumerate(PHOTOS):
            (tmp_path / f"class{k % 3}").mkdir(exist_ok=True)
            (tmp_path / f"class{k % 3}" / path.name).write_bytes(path.read_bytes())
        source = open_images(tmp_path)
        assert [source.label(i) for i in range(8)] == [0, 0, 0, 1, 1, 1, 2, 2]
        assert source.name(3).startswith("class1/")
        assert "3 classes" in source.describe()
        assert [open_images(tmp_path, limit=4).label(i) for i in range(4)] == [0, 0, 0, 1]

    def test_train_and_val_folders_are_splits(self, tmp_path: Path) -> None:
        for split, files in (("train", PHOTOS[:5]), ("val", PHOTOS[5:])):
            for k, path in enumerate(files):
                (tmp_path / split / f"n{k % 2}").mkdir(parents=True, exist_ok=True)
                (tmp_path / split / f"n{k % 2}" / path.name).write_bytes(path.read_bytes())
        with pytest.raises(DataError, match=r"train, validation.*name one"):
            open_images(tmp_path)
        assert len(open_images(tmp_path, split="train")) == 5
        assert [len(open_images(tmp_path, split=name)) for name in ("val", "Valid", "VALIDATION")] == [3, 3, 3]
        validation = open_images(tmp_path, split="validation")
        assert [validation.label(i) for i in range(3)] == [0, 0, 1]

    def test_files_in_folders_keep_the_order_of_their_folders(self, tmp_path: Path) -> None:
        names = ["a/z/é.JPG", "a/z.jpg", "a-b/c.jpeg", "b.png"]
        for name in names:
            (tmp_path / name).parent.mkdir(exist_ok=True, parents=True)
            (tmp_path / name).write_bytes(PHOTOS[0].read_bytes())
        source = open_images(tmp_path)
        assert [source.name(i) for i in range(4)] == names
        assert sorted(tmp_path / name for name in names) == [tmp_path / name for name in names]
        assert {source[i].size for i in range(4)} == {(256, 256)}
        assert source.label(0) is None
        some = open_images(tmp_path / "a*" / "*.jp*g")
        assert [some.name(i) for i in range(len(some))] == ["a/z.jpg", "a-b/c.jpeg"]

    def test_a_broken_image_is_named(self, tmp_path: Path) -> None:
        (tmp_path / "cut.jpg").write_bytes(PHOTOS[0].read_bytes()[:5000])
        with pytest.raises(ImageError, match=r"cut\.jpg"):
            open_images(tmp_path)[0]

    def test_one_file_and_a_pattern(self) -> None:
        assert len(open_images(PHOTOS[0])) == 1
        assert open_images(PHOTOS[0]).name(0) == PHOTOS[0].name
        source = open_images(PHOTOS[0].parent / "c*.jpg")
        assert [source.name(i) for i in range(len(source))] == ["cat.jpg", "coffee.jpg"]


class TestParquet:
    def test_bytes_names_and_labels(self, tmp_path: Path) -> None:
        write_parquet(tmp_path / "a.parquet", PHOTOS[:5], label=[4, 0, None, 2, 1])
        write_parquet(tmp_path / "b.parquet", PHOTOS[5:], label=[7, 7, 7])
        source = open_images(tmp_path)
        assert [source.name(i) for i in range(8)] == [p.name for p in PHOTOS]
        assert [source.label(i) for i in range(8)] == [4, 0, None, 2, 1, 7, 7, 7]
        assert all(np.array_equal(np.asarray(source[i]), pixels(p)) for i, p in enumerate(PHOTOS))
        assert len(open_images(tmp_path, limit=6)) == 6
        assert len(open_images(tmp_path / "b.parquet")) == 3
        assert len(open_images(tmp_path / "*.parquet", limit=2)) == 2

    def test_splits(self, tmp_path: Path) -> None:
        write_parquet(tmp_path / "data/train-0.parquet", PHOTOS[:4])
        write_parquet(tmp_path / "data/train-1.parquet", PHOTOS[4:6])
        write_parquet(tmp_path / "data/validation-0.parquet", PHOTOS[6:])
        with pytest.raises(DataError, match=r"train, validation.*name one"):
            open_images(tmp_path)
        assert len(open_images(tmp_path, split="train")) == 6
        assert len(open_images(tmp_path / "data", split="validation")) == 2
        assert len(open_images(tmp_path / "data" / "train-*.parquet")) == 6
        with pytest.raises(DataError, match="no files of the split 'test'"):
            open_images(tmp_path, split="test")

    def test_plain_bytes_and_missing_ones(self, tmp_path: Path) -> None:
        pa = pytest.importorskip("pyarrow")
        pq = pytest.importorskip("pyarrow.parquet")
        pq.write_table(pa.table({"image": [PHOTOS[0].read_bytes(), None]}), tmp_path / "a.parquet")
        source = open_images(tmp_path)
        assert np.array_equal(np.asarray(source[0]), pixels(PHOTOS[0]))
        assert source.name(1) == "a.parquet:1"
        with pytest.raises(ImageError, match=r"a\.parquet:1"):
            source[1]

    def test_a_path_in_the_file_is_never_opened(self, tmp_path: Path) -> None:
        pa = pytest.importorskip("pyarrow")
        pq = pytest.importorskip("pyarrow.parquet")
        kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
        images = pa.array([{"bytes": None, "path": str(PHOTOS[0])}], kind)
        pq.write_table(pa.table({"image": images}), tmp_path / "a.parquet")
        with pytest.raises(ImageError, match="has no bytes"):
            open_images(tmp_path)[0]

    def test_without_pyarrow(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        write_parquet(tmp_path / "a.parquet", PHOTOS[:1])
        monkeypatch.setitem(sys.modules, "pyarrow", None)
        with pytest.raises(DataError, match="pip install"):
            open_images(tmp_path)

    def test_foreign_files_and_columns(self, tmp_path: Path) -> None:
        pa = pytest.importorskip("pyarrow")
        pq = pytest.importorskip("pyarrow.parquet")
        (tmp_path / "a.parquet").write_bytes(PHOTOS[0].read_bytes())
        pq.write_table(pa.table({"picture": [b"x"]}), tmp_path / "b.parquet")
        pq.write_table(pa.table({"image": ["a.jpg"]}), tmp_path / "c.parquet")
        write_parquet(tmp_path / "d.parquet", [])
        for name, words in (("a", "not a Parquet"), ("b", "'picture'"), ("c", "column 'image'"), ("d", "column")):
            with pytest.raises(DataError, match=words):
                open_images(tmp_path / f"{name}.parquet")

    def test_large_sets_are_read_by_row_group(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        pq = pytest.importorskip("pyarrow.parquet")
        for name, files in (("a", PHOTOS[:5]), ("b", PHOTOS[5:])):
            write_parquet(tmp_path / f"{name}.parquet", files, label=list(range(len(files))))
            table = pq.read_table(tmp_path / f"{name}.parquet")
            pq.write_table(table, tmp_path / f"{name}.parquet", row_group_size=2, compression="zstd")
        small = open_images(tmp_path)
        monkeypatch.setattr(parquet, "IN_MEMORY", 1000)
        large = open_images(tmp_path)
        assert large._memory is None  # type: ignore[attr-defined]
        assert small._memory is not None  # type: ignore[attr-defined]
        for i in (7, 0, 1, 4, 5, 6, 2, 3, -1):
            assert large[i].tobytes() == small[i].tobytes()
            assert (large.name(i), large.label(i)) == (small.name(i), small.label(i))
        assert large.describe() == small.describe() == f"8 images in 2 Parquet files of {tmp_path}, 5 classes"
        one = tmp_path / "a.parquet"
        assert open_images(one).describe() == f"5 images in {one}, 5 classes"
        last = open_images(tmp_path, limit=7)
        assert [last.label(i) for i in range(len(last))] == [0, 1, 2, 3, 4, 0, 1]
        with pytest.raises(IndexError):
            last[7]

    def test_a_damaged_row_group_costs_its_images_alone(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        pq = pytest.importorskip("pyarrow.parquet")
        monkeypatch.setattr(parquet, "IN_MEMORY", 1000)
        path = tmp_path / "a.parquet"
        write_parquet(path, PHOTOS)
        pq.write_table(pq.read_table(path), path, row_group_size=4, compression="zstd")
        data = bytearray(path.read_bytes())
        chunk = pq.ParquetFile(path).metadata.row_group(1).column(0)
        start = chunk.dictionary_page_offset or chunk.data_page_offset
        data[start + 2000 : start + chunk.total_compressed_size] = bytes(chunk.total_compressed_size - 2000)
        path.write_bytes(data)
        source = open_images(path)
        assert source[3].tobytes() == Image.open(PHOTOS[3]).convert("RGB").tobytes()
        with pytest.raises(ImageError, match=rf"{PHOTOS[4].name}: .*a\.parquet: cannot be read"):
            source[4]

    def test_the_shared_photographs(self, shared: Path) -> None:
        tiny = open_images(shared / "data" / "tiny64", split="validation")
        assert len(tiny) == 5000
        assert {tiny.label(i) for i in range(5000)} == set(range(100))
        assert {tiny[i].size for i in range(0, 5000, 500)} == {(64, 64)}
        photos = open_images(shared / "data" / "photos256", split="validation", limit=20)
        assert photos.label(0) is None
        assert photos[19].size == (256, 256)


class TestArray:
    def test_images_and_labels(self, tmp_path: Path) -> None:
        images = np.stack([pixels(p) for p in PHOTOS])
        np.save(tmp_path / "a.npy", images)
        source = open_images(tmp_path / "a.npy")
        assert np.array_equal(np.asarray(source[5]), images[5])
        assert isinstance(source.images, np.memmap)  # type: ignore[attr-defined]
        assert source.label(0) is None
        np.save(tmp_path / "a.labels.npy", np.arange(8)[::-1])
        source = open_images(tmp_path / "a.npy", limit=4)
        assert [source.label(i) for i in range(len(source))] == [7, 6, 5, 4]

    def test_wrong_arrays(self, tmp_path: Path) -> None:
        np.save(tmp_path / "float.npy", np.zeros((2, 8, 8, 3), np.float32))
        np.save(tmp_path / "shape.npy", np.zeros((2, 3, 8, 8), np.uint8))
        np.save(tmp_path / "object.npy", np.array([{"a": 1}], dtype=object))
        np.save(tmp_path / "l.npy", np.zeros((2, 8, 8, 3), np.uint8))
        np.save(tmp_path / "l.labels.npy", np.arange(3))
        (tmp_path / "text.npy").write_text("no array")
        (tmp_path / "empty.npy").write_bytes(b"")
        with io.BytesIO() as archive:
            np.savez(archive, a=np.zeros(3))
            (tmp_path / "zip.npy").write_bytes(archive.getvalue())
        for name in ("float", "shape", "object", "l", "text", "empty", "zip"):
            with pytest.raises(DataError, match=f"{name}.*npy"):
                open_images(tmp_path / f"{name}.npy")


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (("s-0.tar", "s-1.tar", "logo.png"), r"images \(logo\.png\) and \.tar \(s-0\.tar, \.\.\.\)"),
        (("a.tar", "b.tar.gz"), r"b\.tar\.gz: is a compressed tar"),
        (("a.PNG", "b.TGZ"), r"b\.TGZ: is a compressed tar"),
        (("a.parquet", "B.PARQUET", "c.png"), r"images \(c\.png\) and \.parquet \(B\.PARQUET, \.\.\.\)"),
        (("data/a.parquet", "b.tar"), r"\.tar \(b\.tar\) and \.parquet \(data/a\.parquet\)"),
        (("in/it/a.tar", "b.jpg"), r"one kind is read at a time"),
    ],
)
def test_a_folder_of_several_kinds_is_refused(tmp_path: Path, names: tuple[str, ...], said: str) -> None:
    for name in (*names, "notes.txt", "a.tar.sha256"):
        (tmp_path / name).parent.mkdir(exist_ok=True, parents=True)
        (tmp_path / name).write_bytes(PHOTOS[0].read_bytes())
    with pytest.raises(DataError, match=said):
        open_images(tmp_path)
    with pytest.raises(DataError, match=said):
        open_given([str(tmp_path)])


def test_suffixes_of_any_case(tmp_path: Path) -> None:
    for name, photo in (("a.parquet", PHOTOS[0]), ("B.PARQUET", PHOTOS[1])):
        write_parquet(tmp_path / "parquet" / name, [photo])
    for name, photo in (("a.tar", PHOTOS[2]), ("B.TAR", PHOTOS[3])):
        (tmp_path / "tar").mkdir(exist_ok=True)
        with tarfile.open(tmp_path / "tar" / name, "w") as tar:
            tar.add(photo, photo.name)
    for kind, last in (("parquet", "B.PARQUET"), ("tar", "B.TAR")):
        assert len(open_images(tmp_path / kind)) == len(open_given([str(tmp_path / kind)]).source) == 2
        assert len(open_images(tmp_path / kind / last)) == len(open_given([str(tmp_path / kind / last)]).source) == 1


def test_several_data_sets_are_given_by_one_pattern(tmp_path: Path) -> None:
    for name in ("a.tar", "b.tar"):
        (tmp_path / name).write_bytes(b"")
    with pytest.raises(ConfigError, match=r"a\.tar is a data set.*one pattern in quotes"):
        open_given([str(tmp_path / "a.tar"), str(tmp_path / "b.tar")])


def test_what_is_not_there(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("x")
    for path, words in (
        (tmp_path / "nowhere", "no such file or folder; check the path"),
        ("flowmo-mini", "that is a model's name, and models stand before the data"),
        (tmp_path, "no image found"),
        (tmp_path / "*.parquet", "no file matches"),
        (tmp_path / "notes.txt", "give a folder"),
    ):
        with pytest.raises(DataError, match=words):
            open_images(path)
    with pytest.raises(DataError, match="has no split"):
        open_images(PHOTOS[0].parent, split="train")
    with pytest.raises(DataError, match="limit"):
        open_images(PHOTOS[0].parent, limit=0)
