"""Where each image lies in a tar, found by reading headers alone; nothing is unpacked."""

from __future__ import annotations

import json
import os
import re
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import IO

import numpy as np

from ..errors import DataError
from ..image_utils.decode import IMAGE_SUFFIXES
from .sources import Texts

WNID = re.compile(r"n\d{8}")
"""A class of ImageNet, as in n01440764."""

_LABEL_SUFFIXES = ("cls", "json")
_MOST_LABEL_BYTES = 65536


@dataclass(frozen=True)
class TarIndex:
    """The images of one tar, in its order.

    offsets, sizes: int64, in bytes. labels: int32, from members of the same key (WebDataset), -1 where there is none.
    classes: of each image, the inner tar that it lies in, without ``.tar``, or its ImageNet folder; "" for none.
    """

    offsets: np.ndarray
    sizes: np.ndarray
    labels: np.ndarray
    names: Texts
    classes: Texts


def read_index(tar: Path, advance: Callable[[int], object] = lambda _: None) -> TarIndex:
    """Find the images of a tar, or of the tars in it. advance: told how many bytes were passed."""
    found = _Found()
    try:
        with open(tar, "rb") as file:
            passed = 0
            for member in _members(file):
                _add(found, file, member, tar)
                advance(member.offset_data - passed)
                passed = member.offset_data
            size = file.seek(0, os.SEEK_END)
            advance(size - passed)
    except (tarfile.TarError, OSError, EOFError, ValueError) as error:
        raise DataError(f"{tar}: {_why(tar, error)}") from None
    index = found.index()
    if len(index.offsets) and int((index.offsets + index.sizes).max()) > size:
        raise DataError(f"{tar}: ends in the middle of an image; fetch it again")
    return index


@dataclass
class _Found:
    """What was met so far. key: of WebDataset, the name up to its first dot."""

    names: list[str] = field(default_factory=list)
    places: list[tuple[int, int]] = field(default_factory=list)
    classes: list[str] = field(default_factory=list)
    labels: dict[str, int] = field(default_factory=dict)

    def index(self) -> TarIndex:
        chosen = range(len(self.names))
        if self.labels:  # WebDataset: one image a key, and no masks or thumbnails beside it
            first: dict[str, int] = {}
            for i in sorted(chosen, key=lambda i: (not _plain(self.names[i]), i)):
                first.setdefault(_key(self.names[i]), i)
            chosen = sorted(first.values())  # type: ignore[assignment]
        places = np.array([self.places[i] for i in chosen], np.int64).reshape(-1, 2)
        return TarIndex(
            places[:, 0],
            places[:, 1],
            np.array([self.labels.get(_key(self.names[i]), -1) for i in chosen], np.int32),
            Texts(self.names[i] for i in chosen),
            Texts(self.classes[i] for i in chosen),
        )


def _add(found: _Found, file: IO[bytes], member: tarfile.TarInfo, tar: Path) -> None:
    """Take note of a member, if it is an image, its label, or a tar of images."""
    path = PurePosixPath(member.name)
    if path.name.startswith("."):
        return
    if path.suffix == ".tar":
        inner = _Slice(file, member.offset_data, member.size)
        for image in _members(inner):
            if _is_image(image.name):
                found.names.append(f"{path.stem}/{PurePosixPath(image.name)}")
                found.places.append((member.offset_data + image.offset_data, image.size))
                found.classes.append(path.stem)
    elif _is_image(member.name):
        found.names.append(str(path))
        found.places.append((member.offset_data, member.size))
        found.classes.append(path.parent.name if WNID.fullmatch(path.parent.name) else "")
    elif path.name.partition(".")[2] in _LABEL_SUFFIXES and member.size <= _MOST_LABEL_BYTES:
        file.seek(member.offset_data)
        found.labels[_key(str(path))] = _label(file.read(member.size))


def _members(file: IO[bytes] | _Slice) -> Iterator[tarfile.TarInfo]:
    """The plain files of a tar. tarfile.ReadError unless it is whole."""
    archive = tarfile.open(fileobj=file, mode="r:")  # type: ignore[call-overload]  # noqa: SIM115
    while (member := archive.next()) is not None:
        archive.members.clear()  # it would keep a million of them
        if member.type in (tarfile.REGTYPE, tarfile.AREGTYPE):
            yield member
    file.seek(archive.offset)
    end = file.read(tarfile.BLOCKSIZE)
    if len(end) < tarfile.BLOCKSIZE or any(end):
        raise tarfile.ReadError(f"no end after {archive.offset:,} bytes")


class _Slice:
    """A part of a file, for reading as if it were one."""

    def __init__(self, file: IO[bytes], start: int, size: int) -> None:
        self.file, self.start, self.size, self.position = file, start, size, 0

    def tell(self) -> int:
        return self.position

    def seek(self, position: int) -> int:
        self.position = position
        return position

    def read(self, count: int) -> bytes:
        self.file.seek(self.start + self.position)
        data = self.file.read(max(0, min(count, self.size - self.position)))
        self.position += len(data)
        return data


def _is_image(name: str) -> bool:
    path = PurePosixPath(name)
    return path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".")


def _key(name: str) -> str:
    """``a/b.seg.png`` -> ``a/b``."""
    path = PurePosixPath(name)
    return str(path.with_name(path.name.partition(".")[0]))


def _plain(name: str) -> bool:
    """Whether the suffix follows the key, as in ``b.png`` and not in ``b.seg.png``."""
    return PurePosixPath(name).name.count(".") == 1


def _label(data: bytes) -> int:
    """The class in a ``.cls`` or ``.json`` member, -1 where it names none."""
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        return -1
    if isinstance(value, dict):
        value = next((value[name] for name in ("label", "cls", "class") if name in value), -1)
    return value if type(value) is int and 0 <= value < 2**31 else -1


def _why(tar: Path, error: Exception) -> str:
    compressed = {b"\x1f\x8b": "gzip", b"BZ": "bzip2", b"\xfd7": "xz", b"\x28\xb5": "zstd"}
    try:
        with open(tar, "rb") as file:
            kind = compressed.get(file.read(2))
    except OSError:
        kind = None
    if kind:
        return f"is compressed by {kind}; unpack it to a plain .tar, in which images are found without reading it whole"
    return f"not a whole tar ({error}); fetch it again"
