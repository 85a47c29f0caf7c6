"""Tars read where they lie: ImageNet's as they are published, class tars, WebDataset shards, and the kept indexes."""

from __future__ import annotations

import gzip
import io
import json
import os
import pickle
import tarfile
import threading
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from flowmo import samples
from flowmo.data import BatchLoader, ImageSource, decode, open_images
from flowmo.data.index_cache import tar_indexes
from flowmo.errors import DataError, ImageError
from flowmo.files import only_one

PHOTOS = samples.paths()
CUT = "n01440764/n01440764_9.JPEG"


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLOWMO_CACHE", str(tmp_path_factory.mktemp("cache")))


def tar_bytes(members: Iterable[tuple[str, bytes]], form: int = tarfile.USTAR_FORMAT) -> bytes:
    with io.BytesIO() as buffer:
        with tarfile.open(fileobj=buffer, mode="w", format=form) as tar:
            for name, data in members:
                entry = tarfile.TarInfo(name)
                entry.size = len(data)
                tar.addfile(entry, io.BytesIO(data))
        return buffer.getvalue()


def saved(image: Image.Image, kind: str) -> bytes:
    with io.BytesIO() as buffer:
        image.save(buffer, kind)
        return buffer.getvalue()


def class_tars() -> dict[str, list[tuple[str, bytes]]]:
    """Three classes of real photographs, among them a cut JPEG, a CMYK JPEG, and a PNG that is named .JPEG."""
    photos = [path.read_bytes() for path in PHOTOS]
    cmyk = saved(Image.open(PHOTOS[2]).convert("CMYK"), "JPEG")
    png = saved(Image.open(PHOTOS[3]).convert("RGB"), "PNG")
    members = {
        "n02113799": [photos[0], photos[1], cmyk],
        "n01440764": [png, photos[4], photos[0][:5000]],
        "n15075141": [photos[5], photos[6], photos[7]],
    }
    numbers = iter(range(4, 13))
    return {wnid: [(f"{wnid}_{next(numbers)}.JPEG", data) for data in files] for wnid, files in members.items()}


@pytest.fixture
def train_tar(tmp_path: Path) -> Path:
    path = tmp_path / "data" / "ILSVRC2012_img_train.tar"
    path.parent.mkdir()
    path.write_bytes(tar_bytes((f"{wnid}.tar", tar_bytes(members)) for wnid, members in class_tars().items()))
    return path


def everything(source: ImageSource) -> list[tuple[str, int | None, bytes | None]]:
    """Name, label and pixels of all images; None for the pixels of broken ones."""

    def pixels(index: int) -> bytes | None:
        try:
            return source[index].tobytes()
        except ImageError:
            return None

    return [(source.name(i), source.label(i), pixels(i)) for i in range(len(source))]


class TestImageNet:
    def test_the_training_tar(self, train_tar: Path) -> None:
        source = open_images(train_tar)
        assert source.describe() == f"9 images in {train_tar}, 3 classes"
        order = [(f"{wnid}/{name}", data) for wnid, members in class_tars().items() for name, data in members]
        assert [source.name(i) for i in range(9)] == [name for name, _ in order]
        assert [source.label(i) for i in range(9)] == [1, 1, 1, 0, 0, 0, 2, 2, 2]
        for i, (name, data) in enumerate(order):
            if name == CUT:
                with pytest.raises(ImageError, match=r"img_train\.tar: n01440764/n01440764_9\.JPEG: damaged"):
                    source[i]
            else:
                assert source[i].tobytes() == decode(data, name).tobytes()
        assert source[3].tobytes() == Image.open(PHOTOS[3]).convert("RGB").tobytes()
        assert np.abs(np.asarray(source[2], float) - np.asarray(Image.open(PHOTOS[2]).convert("RGB"))).mean() < 8
        assert [file.name for file in train_tar.parent.iterdir()] == [train_tar.name]
        assert len(open_images(train_tar, limit=4)) == 4

    def test_it_trains_by_processes_and_names_what_is_broken(self, train_tar: Path) -> None:
        runs = []
        for workers in (0, 2):
            with BatchLoader(open_images(train_tar), 6, 64, seed=1, workers=workers) as loader:
                runs.append(list(islice(loader, 6)))
                assert loader.skipped == [CUT]
        for one, other in zip(*runs, strict=True):
            assert one.names == other.names
            assert CUT not in one.names
            assert torch.equal(one.images, other.images)
            assert one.labels is not None
            assert one.labels.tolist() == [sorted(class_tars()).index(name[:9]) for name in one.names]

    def test_a_folder_of_class_tars_is_the_same(self, train_tar: Path, tmp_path: Path) -> None:
        (tmp_path / "classes").mkdir()
        for wnid, members in class_tars().items():
            (tmp_path / "classes" / f"{wnid}.tar").write_bytes(tar_bytes(members))
        apart = open_images(tmp_path / "classes")
        assert "3 tars" in apart.describe()
        assert sorted(everything(apart), key=str) == sorted(everything(open_images(train_tar)), key=str)

    def test_a_tar_of_class_folders_is_the_same(self, train_tar: Path, tmp_path: Path) -> None:
        members = [(f"train/{w}/{name}", data) for w, files in class_tars().items() for name, data in files]
        (tmp_path / "whole.tar").write_bytes(tar_bytes(members))
        whole = everything(open_images(tmp_path / "whole.tar"))
        assert [(n.removeprefix("train/"), label, p) for n, label, p in whole] == everything(open_images(train_tar))

    def test_the_validation_tar(self, train_tar: Path) -> None:
        names = [f"ILSVRC2012_val_{8 - k:08}.JPEG" for k in range(8)]  # not in the order of their names
        val = train_tar.with_name("ILSVRC2012_img_val.tar")
        val.write_bytes(tar_bytes((n, path.read_bytes()) for n, path in zip(names, PHOTOS, strict=True)))
        with pytest.raises(DataError, match=r"train, validation.*name one"):
            open_images(val.parent)
        assert len(open_images(val.parent, split="train")) == 9
        source = open_images(val.parent, split="validation")
        assert [source.name(i) for i in range(8)] == names
        assert [source.label(i) for i in range(8)] == [None] * 8
        beside = val.with_suffix(".labels.txt")
        for text, labels in (
            ("\n".join("76543210"), [0, 1, 2, 3, 4, 5, 6, 7]),
            ("n07\nn01\nn02\nn03\nn04\nn05\nn06\nn00".replace("n0", "n0000000"), [0, 6, 5, 4, 3, 2, 1, 7]),
            ("".join(f"{n} {k}\n" for k, n in enumerate(names)), list(range(8))),
        ):
            beside.write_text(text)
            assert [open_images(val).label(i) for i in range(8)] == labels
        for text, words in (
            ("1\n2\n", "needs 8 lines"),
            ("\n".join("1234567x"), "all be integers"),
            ("".join(f"{k}.JPEG {k}\n" for k in range(8)), "no line for ILSVRC2012_val_00000008"),
            ("", "needs 8 lines"),
        ):
            beside.write_text(text)
            with pytest.raises(DataError, match=words):
                open_images(val)


class TestWebDataset:
    @pytest.fixture
    def folder(self, tmp_path: Path) -> Path:
        for shard in range(2):
            members = []
            for k, path in enumerate(PHOTOS[4 * shard : 4 * shard + 4]):
                image = Image.open(path).convert("RGB")
                kind = ("jpg", "jpeg", "png", "webp")[k]
                members += [
                    (f"{k:06}.seg.png", saved(image.convert("L"), "PNG")),
                    (f"{k:06}.{kind}", saved(image, {"jpg": "JPEG"}.get(kind, kind))),
                ]
                if shard:
                    members.append((f"{k:06}.json", json.dumps({"label": 10 + k, "caption": "a picture"}).encode()))
                else:
                    members.append((f"{k:06}.cls", str(k).encode() + b"\n"))
            (tmp_path / f"shard-{shard + 9:06}.tar").write_bytes(tar_bytes(members))
        return tmp_path

    def test_images_and_labels_by_key(self, folder: Path) -> None:
        source = open_images(folder / "shard-{000009..000010}.tar")
        assert [source.label(i) for i in range(len(source))] == [0, 1, 2, 3, 10, 11, 12, 13]
        assert source.name(5) == "shard-000010/000001.jpeg"
        assert source[2].tobytes() == Image.open(PHOTOS[2]).convert("RGB").tobytes()
        assert {source[i].mode for i in range(8)} == {"RGB"}
        assert [source[i].size for i in range(8)] == [Image.open(path).size for path in PHOTOS]
        for same in (folder, folder / "*.tar", folder / "shard-*{09..10}.tar"):
            assert everything(open_images(same)) == everything(source)

    def test_labels_that_are_none(self, tmp_path: Path) -> None:
        photo = PHOTOS[0].read_bytes()
        texts = {"a.cls": b"cat", "b.json": b'{"label": "cat"}', "c.json": b"[" * 100_000, "d.json": b'{"cls": -1}'}
        members = [
            (name, data) for text, label in texts.items() for name, data in ((f"{text[0]}.jpg", photo), (text, label))
        ]
        (tmp_path / "a.tar").write_bytes(tar_bytes([*members, ("e.jpg", photo), ("f.jpg", photo), ("f.cls", b"7")]))
        source = open_images(tmp_path / "a.tar")
        assert [source.label(i) for i in range(len(source))] == [None, None, None, None, None, 7]

    def test_a_missing_shard_is_named(self, folder: Path) -> None:
        with pytest.raises(DataError, match=r"shard-000011\.tar: there is no such file"):
            open_images(folder / "shard-{000009..000012}.tar")
        with pytest.raises(DataError, match="must rise"):
            open_images(folder / "shard-{000010..000009}.tar")

    def test_compressed_shards_are_refused(self, folder: Path) -> None:
        data = gzip.compress((folder / "shard-000009.tar").read_bytes())
        for name, words in (
            ("a.tar.gz", "compressed tar"),
            ("a.tgz", "compressed tar"),
            ("b.tar", "compressed by gzip"),
        ):
            (folder / name).write_bytes(data)
            with pytest.raises(DataError, match=f"{name}.*{words}.*unpack"):
                open_images(folder / name)
        for shard in folder.glob("*.tar"):
            shard.unlink()
        with pytest.raises(DataError, match=r"a\.tar\.gz: is a compressed tar"):
            open_images(folder)


def test_names_long_and_foreign(tmp_path: Path) -> None:
    names = ["x" * 150 + ".jpg", "снимок/Ä é.jpg", "._snimok.jpg", "a/.hidden.png", "notes.txt", "b.JPG"]
    for form in (tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        path = tmp_path / f"{form}.tar"
        path.write_bytes(tar_bytes(((name, PHOTOS[0].read_bytes()) for name in names), form))
        source = open_images(path)
        assert [source.name(i) for i in range(len(source))] == [names[0], names[1], names[5]]
        assert {source[i].tobytes() for i in range(3)} == {Image.open(PHOTOS[0]).convert("RGB").tobytes()}


def test_a_tar_that_is_not_whole_is_named(train_tar: Path, tmp_path: Path) -> None:
    whole = train_tar.read_bytes()
    end = len(whole.rstrip(b"\0"))
    for size in [0, 100, 512, 700, 1024, *range(2000, end, 37 * 1024), end]:
        (tmp_path / "cut.tar").write_bytes(whole[:size])
        with pytest.raises(DataError, match=r"cut\.tar: (not a whole tar|ends in the middle).*fetch it again"):
            open_images(tmp_path / "cut.tar")
    second = whole.index(b"n01440764.tar\0")
    (tmp_path / "cut.tar").write_bytes(whole[:second] + b"?" + whole[second + 1 :])
    with pytest.raises(DataError, match="not a whole tar"):
        open_images(tmp_path / "cut.tar")
    (tmp_path / "cut.tar").write_bytes(tar_bytes([("notes.txt", b"nothing to see")]))
    with pytest.raises(DataError, match="holds no image"):
        open_images(tmp_path / "cut.tar")


def test_any_order_from_many_threads_and_in_another_process(train_tar: Path) -> None:
    source = open_images(train_tar)
    good = [i for i in range(9) if i != 5]
    expected = {i: source[i].tobytes() for i in good}
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda i: (i, source[i].tobytes()), good[::-1] * 10))
    assert all(expected[i] == pixels for i, pixels in found)
    assert everything(pickle.loads(pickle.dumps(source))) == everything(source)


class TestCache:
    @pytest.fixture
    def cache(self, tmp_path: Path) -> Path:
        return tmp_path / "run"

    def test_the_index_is_used_again(self, train_tar: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        expected = everything(open_images(train_tar, cache=cache))
        (file,) = (cache / "tar-indexes").glob("*.npz")

        def again(*_: object) -> None:
            raise DataError("read again")

        monkeypatch.setattr("flowmo.data.index_cache.read_index", again)
        assert everything(open_images(train_tar, cache=cache)) == expected
        file.unlink()
        with pytest.raises(DataError, match="read again"):
            open_images(train_tar, cache=cache)

    @pytest.mark.parametrize("replace", [False, True], ids=["written over", "renamed over"])
    def test_a_tar_of_the_same_size_and_time_is_read_anew(self, tmp_path: Path, cache: Path, replace: bool) -> None:
        path, names, data = tmp_path / "s.tar", ["red.bmp", "blue.bmp"], {}
        for name in names:
            buffer = io.BytesIO()
            Image.new("RGB", (8, 8), name[:-4]).save(buffer, "BMP")
            data[name] = buffer.getvalue()
        path.write_bytes(tar_bytes((name, data[name]) for name in names))
        before = path.stat()
        old = open_images(path, cache=cache)
        assert old[0].getpixel((0, 0)) == (255, 0, 0)
        target = tmp_path / "new.tar" if replace else path
        target.write_bytes(tar_bytes((name, data[name]) for name in names[::-1]))
        os.utime(target, ns=(before.st_atime_ns, before.st_mtime_ns))
        os.replace(target, path)
        new = open_images(path, cache=cache)
        found = {new.name(i): new[i].getpixel((0, 0)) for i in range(2)}
        assert found == {"red.bmp": (255, 0, 0), "blue.bmp": (0, 0, 255)}
        with pytest.raises(ImageError, match=r"red\.bmp: the tar was changed"):
            old[0]

    def test_a_changed_tar_is_read_anew(self, train_tar: Path, cache: Path) -> None:
        assert len(open_images(train_tar, cache=cache)) == 9
        train_tar.write_bytes(tar_bytes([("n00000001.tar", tar_bytes([("a.JPEG", PHOTOS[0].read_bytes())]))]))
        assert [(name, label) for name, label, _ in everything(open_images(train_tar, cache=cache))] == [
            ("n00000001/a.JPEG", 0)
        ]

    def test_a_damaged_index_is_made_anew(self, train_tar: Path, cache: Path) -> None:
        expected = everything(open_images(train_tar, cache=cache))
        (good,) = tar_indexes([train_tar], cache)
        (file,) = (cache / "tar-indexes").glob("*.npz")
        whole = file.read_bytes()
        damaged = [b"", b"x", whole[:-1], whole[: len(whole) // 2], whole[100:]]
        damaged += [whole[:k] + bytes([whole[k] ^ 255]) + whole[k + 1 :] for k in range(0, len(whole), 97)]
        for data in damaged:
            file.write_bytes(data)
            (index,) = tar_indexes([train_tar], cache)
            assert [*index.names] == [name for name, _, _ in expected]
            assert index.offsets.tolist() == good.offsets.tolist()
            assert index.sizes.tolist() == good.sizes.tolist()
        with file.open("wb") as target:
            np.savez(target, stamp=np.array([{"a": 1}], object))
        assert everything(open_images(train_tar, cache=cache)) == expected

    def test_without_a_place_to_keep_it(self, train_tar: Path, cache: Path) -> None:
        cache.write_text("a file, not a folder")
        assert len(open_images(train_tar, cache=cache)) == 9

    def test_one_reads_and_the_others_wait(self, train_tar: Path, cache: Path) -> None:
        found = []
        waiter = threading.Thread(target=lambda: found.append(open_images(train_tar, cache=cache)))
        with only_one(cache / "tar-indexes" / ".lock") as mine:
            assert mine
            waiter.start()
            waiter.join(0.5)
            assert waiter.is_alive()
        waiter.join(10)
        assert len(found[0]) == 9


class TestOddMembers:
    def test_links_and_holes_are_named_and_the_next_goes_on(self, tmp_path: Path) -> None:
        with tarfile.open(tmp_path / "a.tar", "w", format=tarfile.PAX_FORMAT) as tar:
            for name, kind in (
                ("hard.png", tarfile.LNKTYPE),
                ("soft.png", tarfile.SYMTYPE),
                ("pipe.png", tarfile.FIFOTYPE),
            ):
                member = tarfile.TarInfo(name)
                member.type, member.linkname = kind, "good.jpg"
                tar.addfile(member)
            sparse = tarfile.TarInfo("sparse.png")
            # 64 GiB of a hole in an empty member
            sparse.pax_headers = {"GNU.sparse.size": str(2**36), "GNU.sparse.map": f"{2**36},0"}
            tar.addfile(sparse)
            good = tarfile.TarInfo("good.jpg")
            good.size = PHOTOS[0].stat().st_size
            tar.addfile(good, io.BytesIO(PHOTOS[0].read_bytes()))
        source = open_images(tmp_path / "a.tar", cache=tmp_path)
        names = [source.name(i) for i in range(len(source))]
        assert names == ["hard.png", "soft.png", "pipe.png", "sparse.png", "good.jpg"]
        for i in range(4):
            with pytest.raises(ImageError, match=f"{names[i]}: is stored as a link or with holes"):
                source[i]
        assert source[4].mode == "RGB"

    def test_a_large_member_is_refused_before_it_is_read(self, tmp_path: Path) -> None:
        size = 2**29 + 512
        header = tarfile.TarInfo("large.png")
        header.size = size
        with open(tmp_path / "a.tar", "wb") as file:
            file.write(header.tobuf())
            file.seek(size, os.SEEK_CUR)
            file.write(tar_bytes([("good.jpg", PHOTOS[0].read_bytes())]))
        source = open_images(tmp_path / "a.tar", cache=tmp_path)
        with pytest.raises(ImageError, match=r"large\.png: too large"):
            source[0]
        assert source[1].mode == "RGB"

    @pytest.mark.parametrize("size", [-1024, -512, -(2**60), 2**62, 2**80])
    def test_sizes_that_are_none(self, tmp_path: Path, size: int) -> None:
        header = bytearray(tarfile.TarInfo("a.png").tobuf(tarfile.GNU_FORMAT))
        header[124:136] = (b"\x80" if size >= 0 else b"\xff") + (size % 2**88).to_bytes(11, "big")
        header[148:156] = b" " * 8
        header[148:156] = b"%06o\0 " % sum(header)
        (tmp_path / "a.tar").write_bytes(tar_bytes([("b.png", b"x")])[:1024] + bytes(header) + bytes(4096))
        with pytest.raises(DataError, match=r"a\.tar: (not a whole tar|ends in)"):
            open_images(tmp_path / "a.tar", cache=tmp_path)
