"""Indexes of tars, found once and kept in files: of ImageNet's training tar it takes minutes to read the headers."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from ..files import cache_folder, only_one, replacing
from .sources import Texts
from .tar_index import TarIndex, read_index

_VERSION = 1


def tar_indexes(tars: Sequence[Path], cache: Path | None = None) -> list[TarIndex]:
    """An index of each tar: from the folder ``cache`` (the user's by default) where that has one of the same tar, of
    the same size and time, else read from the tar and put there. Of several processes one reads, the others wait.

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
    """A bar of bytes, for a terminal."""
    try:
        from tqdm import tqdm
    except ImportError:  # a machine with the core alone
        yield lambda count: None
        return
    with tqdm(total=total, desc="finding images in tars", unit="B", unit_scale=True, delay=2, disable=None) as bar:
        yield bar.update


def _cache_file(folder: Path, tar: Path) -> Path:
    place = hashlib.sha256(os.fsencode(tar.resolve())).hexdigest()[:16]
    return folder / f"{tar.stem}-{place}.npz"


def _stamp(tar: Path) -> np.ndarray:
    status = tar.stat()
    return np.array([_VERSION, status.st_size, status.st_mtime_ns])


def _save(folder: Path, tar: Path, index: TarIndex) -> None:
    arrays = {"stamp": _stamp(tar), "offsets": index.offsets, "sizes": index.sizes, "labels": index.labels}
    for name, texts in (("names", index.names), ("classes", index.classes)):
        arrays |= {f"{name}_ends": texts.ends, f"{name}_bytes": np.frombuffer(texts.bytes, np.uint8)}
    try:
        with replacing(_cache_file(folder, tar)) as part, open(part, "wb") as file:
            np.savez(file, **arrays)  # type: ignore[arg-type]
    except OSError:
        pass


def _load(folder: Path, tar: Path) -> TarIndex | None:
    try:
        with np.load(_cache_file(folder, tar), allow_pickle=False) as arrays:
            if not np.array_equal(arrays["stamp"], _stamp(tar)):
                return None
            names, classes = (Texts.of(arrays[f"{n}_bytes"], arrays[f"{n}_ends"]) for n in ("names", "classes"))
            return TarIndex(arrays["offsets"], arrays["sizes"], arrays["labels"], names, classes)
    except FileNotFoundError:
        return None
    except Exception:  # Reading a damaged archive raises nearly every type there is.
        return None


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
