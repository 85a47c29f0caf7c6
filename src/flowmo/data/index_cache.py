"""Indexes of tars, found once and kept in files: of ImageNet's training tar it takes minutes to read the headers."""

from __future__ import annotations

import hashlib
import os
import time
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from ..files import cache_folder, only_one, real_path, replacing
from ..image_utils.regular import check_regular
from ..labels import NONE
from .sources import Texts
from .tar_index import NOT_PLAIN, TarIndex, read_index

_VERSION = 4
_COLUMNS = ("offsets", "sizes", "headers", "labels")


def tar_indexes(tars: Sequence[Path], cache: Path | None = None) -> list[TarIndex]:
    """Return an index of each tar, from the folder ``cache`` (the user's by default) or read from the tar.

    The cache is taken where it has one of the same tar, of the same size, times and inode; else the tar is read and its
    index put there. Of several processes one reads, others wait.

    Raises DataError for a file that is no plain tar or ends too soon. A cache that cannot be written is done without.
    """
    folder = (cache or cache_folder()) / "tar-indexes"
    found = {tar: index for tar in tars if (index := _load(folder, tar))}
    missing = [tar for tar in tars if tar not in found]
    if missing:
        with _alone(folder), _progress(sum(tar.stat().st_size for tar in missing)) as advance:
            for tar in missing:
                index = _load(folder, tar)  # of the process that was waited for
                if index is None:
                    index = read_index(tar, advance)
                    _save(folder, tar, index)
                found[tar] = index
    return [found[tar] for tar in tars]


@contextmanager
def _progress(total: int) -> Iterator[Callable[[int], object]]:
    """Yield what advances a bar of bytes, for a terminal."""
    try:
        from tqdm import tqdm
    except ImportError:  # a machine with the core alone
        yield lambda count: None
        return
    with tqdm(total=total, desc="finding images in tars", unit="B", unit_scale=True, delay=2, disable=None) as bar:
        yield bar.update


def _cache_file(folder: Path, tar: Path) -> Path:
    place = hashlib.sha256(os.fsencode(real_path(tar))).hexdigest()[:16]
    return folder / f"{tar.stem}-{place}.npz"


def _stamp(tar: Path) -> np.ndarray:
    status = tar.stat()
    values = (_VERSION, status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino, status.st_dev)
    return np.array([value % 2**64 for value in values], np.uint64)


def _save(folder: Path, tar: Path, index: TarIndex) -> None:
    arrays = {name: getattr(index, name) for name in _COLUMNS} | {"stamp": _stamp(tar)}
    for name, texts in (("names", index.names), ("classes", index.classes)):
        arrays |= {f"{name}_ends": texts.ends, f"{name}_bytes": np.frombuffer(texts.bytes, np.uint8)}
    try:
        with replacing(_cache_file(folder, tar)) as part, open(part, "wb") as file:
            np.savez(file, **arrays)  # type: ignore[arg-type]
    except OSError:
        pass


def _load(folder: Path, tar: Path) -> TarIndex | None:
    try:
        file = _cache_file(folder, tar)
        check_regular(file)
        with zipfile.ZipFile(file) as archive:  # ours is not compressed, so it says nothing larger than itself
            if any(info.compress_type or info.file_size > file.stat().st_size for info in archive.infolist()):
                return None
        with np.load(file, allow_pickle=False) as arrays:
            if not np.array_equal(arrays["stamp"], _stamp(tar)):
                return None
            names, classes = (Texts.of(arrays[f"{n}_bytes"], arrays[f"{n}_ends"]) for n in ("names", "classes"))
            offsets, sizes, headers, labels = (arrays[name] for name in _COLUMNS)
            index = TarIndex(offsets, sizes, headers, labels, names, classes)
        return index if _is_sound(index, tar) else None
    except FileNotFoundError:
        return None
    except Exception:  # Reading a damaged archive raises nearly every type there is.
        return None


def _is_sound(index: TarIndex, tar: Path) -> bool:
    """Return whether an index from a file is one that could have been read from the tar."""
    count = len(index.offsets)
    columns = (index.offsets, index.sizes, index.headers, index.labels)
    if any(column.shape != (count,) or column.dtype.kind != "i" for column in columns):
        return False
    for texts in (index.names, index.classes):
        ends = texts.ends
        if ends.shape != (count,) or ends.dtype != np.int64 or (np.diff(ends, prepend=0) < 0).any():
            return False
        if int(ends[-1] if count else 0) != len(texts.bytes):
            return False
    size = tar.stat().st_size
    inside = (index.offsets >= 0) & (index.offsets <= size) & (index.sizes >= NOT_PLAIN) & (index.sizes <= size)
    return bool(inside.all() and (index.offsets + index.sizes <= size).all() and (index.labels >= NONE).all())


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Wait until no other process writes into a folder. Where nobody can write there, all go on."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / ".lock").touch()
    except OSError:
        yield
        return
    while True:
        with only_one(folder / ".lock") as mine:
            if mine:
                yield
                return
        time.sleep(0.2)
