"""Where each image lies in a tar, found by reading headers alone; nothing is unpacked."""

from __future__ import annotations

import codecs
import contextlib
import json
import os
import re
import tarfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import IO, Any

import numpy as np

from ..errors import DataError
from ..image_utils.decode import IMAGE_SUFFIXES
from ..image_utils.notes import note
from ..image_utils.regular import NotRegularError, check_regular
from ..labels import NONE, checked_labels, labels_by_name, whole_labels
from .listing import COMPRESSED_TAR, TAR
from .sources import Texts

WNID = re.compile(r"n\d{8}")
"""A class of ImageNet, as in n01440764."""

_LABEL_SUFFIXES = (".cls", ".json")
_MOST_LABEL_BYTES = 2**20
_MOST_HEADER_BYTES = 2**20
_DIGITS, _MOST_DIGITS = re.compile(rb"\d{100,}"), 10**6
"""In a header: tarfile begins a number at each digit of a row of them, so the squares of their lengths are bounded."""
_MOST_PADDING = 2**24
_MAGIC, _MAGIC_AT = re.compile(b"ustar"), 257  # in a header
NOT_PLAIN = -1
"""As the size of an image: it is stored as a link or with holes, and is not read."""


@dataclass(frozen=True)
class TarIndex:
    """The images of one tar, in its order."""

    offsets: np.ndarray  # int64, in bytes
    sizes: np.ndarray  # int64, in bytes; ``NOT_PLAIN`` is of a member without bytes of its own
    headers: np.ndarray  # CRC32 of each image's header, the 512 bytes before it
    labels: np.ndarray  # int32, from members of the same key (WebDataset), -1 for none
    names: Texts  # of the images' members
    # Of each image, the inner tar that it lies in, without ``.tar``, or its ImageNet folder; "" for none.
    classes: Texts


def read_index(tar: Path, advance: Callable[[int], object] = lambda _: None) -> TarIndex:
    """Find the images of a tar, or of the tars in it. advance: told how many bytes were passed."""
    found = _Found()
    try:
        check_regular(tar)
        with open(tar, "rb") as file:
            size, passed = file.seek(0, os.SEEK_END), 0
            whole = _Slice(file, 0, size)
            for member in _members(whole):
                _add(found, whole, member)
                advance(member.offset_data - passed)
                passed = member.offset_data
            advance(size - passed)
        index = found.index()
    except NotRegularError as error:
        raise DataError(f"{tar}: {error}") from None
    except DataError as error:
        raise DataError(f"{tar}: {error}") from None
    except PermissionError:
        raise DataError(f"{tar}: may not be read; check its permissions") from None
    except Exception as error:  # tarfile raises nearly every type there is on damaged headers.
        raise DataError(f"{tar}: {_why(tar, error)}") from None
    if len(index.offsets) and int((index.offsets + index.sizes).max()) > size:
        raise DataError(f"{tar}: ends in the middle of an image; fetch it again")
    return index


@dataclass
class _Found:
    """What was met of a tar so far."""

    names: list[str] = field(default_factory=list)  # of the images
    places: list[tuple[int, int, int]] = field(default_factory=list)  # as ``_place`` gives them
    classes: list[str] = field(default_factory=list)  # of the images, as in ``TarIndex``
    # By the name of their member without its suffix: the label, and that member's name.
    labels: dict[str, tuple[int, str]] = field(default_factory=dict)

    def index(self) -> TarIndex:
        """Return the index of what was found. Raises DataError for two images of one name."""
        labels_by_name([(name, NONE) for name in self.names], "its images")
        keys = self._keys()
        chosen = range(len(self.names))
        if self.labels:  # WebDataset: one image a key, and no masks or thumbnails beside it
            first: dict[str, int] = {}
            for i in sorted(chosen, key=lambda i: (_stem(self.names[i]) != keys[i], i)):
                first.setdefault(keys[i], i)
            if left := [i for i in chosen if first[keys[i]] != i]:
                kept, more = self.names[first[keys[left[0]]]], f"; {len(left)} in all" * (len(left) > 1)
                note(self.names[left[0]], f"was left out (its key and its label are those of {kept}{more})")
            chosen = sorted(first.values())  # type: ignore[assignment]
        places = np.array([self.places[i] for i in chosen], np.int64).reshape(-1, 3)
        return TarIndex(
            places[:, 0],
            places[:, 1],
            places[:, 2],
            np.array([self.labels.get(keys[i], (NONE, ""))[0] for i in chosen], np.int32),
            Texts(self.names[i] for i in chosen),
            Texts(self.classes[i] for i in chosen),
        )

    def _keys(self) -> list[str]:
        """Return the WebDataset key of each image.

        It is its name up to its last dot, where a label is named so; else up to its first, where a label or a plainer
        image is; else up to its last.
        """
        shared = self.labels.keys() | {_key(name) for name in self.names if _stem(name) == _key(name)}
        return [
            _stem(name) if _stem(name) in self.labels or _key(name) not in shared else _key(name) for name in self.names
        ]

    def add_label(self, name: str, data: bytes) -> None:
        """Take note of a member that may be a label. Raises DataError where its key has another."""
        label = _label(data, name)
        before, other = self.labels.get(_stem(name), (NONE, name))
        twice = _stem(name) in self.labels and other == name
        if twice or (NONE not in (label, before) and label != before):
            raise DataError(f"{name} gives the label {label}, but {other} gave {before}; keep one of them")
        self.labels[_stem(name)] = (before if label == NONE else label, name)


def _add(found: _Found, file: _Slice, member: tarfile.TarInfo) -> None:
    """Take note of a member, if it is an image, its label, or a tar of images."""
    path = PurePosixPath(member.name.lstrip("/"))
    if path.name.startswith("."):
        return
    if path.suffix.lower() == TAR:
        if not _is_plain(member):
            raise DataError(f"{member.name} is a tar that is stored sparse or as a link; pack it anew")
        inner = _Slice(file, member.offset_data, member.size)
        for image in _members(inner):
            if _is_image(image.name):
                found.names.append(f"{path.stem}/{PurePosixPath(image.name.lstrip('/'))}")
                found.places.append(_place(inner, image, member.offset_data))
                found.classes.append(path.stem)
    elif _is_image(member.name):
        found.names.append(str(path))
        found.places.append(_place(file, member, 0))
        found.classes.append(path.parent.name if WNID.fullmatch(path.parent.name) else "")
    elif COMPRESSED_TAR.search(path.name):
        note(str(path), "was left out (it is a compressed tar; unpack it to a plain .tar and pack it anew)")
    elif path.suffix.lower() in _LABEL_SUFFIXES:
        if not _is_plain(member) or member.size > _MOST_LABEL_BYTES:
            note(str(path), f"its label was left out (it is a link, or has more than {_MOST_LABEL_BYTES:,} bytes)")
            return
        file.seek(member.offset_data)
        found.add_label(str(path), file.content(member.size))


def _place(file: _Slice, image: tarfile.TarInfo, start: int) -> tuple[int, int, int]:
    """Return where an image's bytes are, how many, and the checksum of its header.

    start: where ``file`` begins in the tar.
    """
    if not _is_plain(image):
        return start, NOT_PLAIN, 0
    file.seek(image.offset_data - tarfile.BLOCKSIZE)
    return start + image.offset_data, image.size, zlib.crc32(file.read(tarfile.BLOCKSIZE))


def _is_plain(member: tarfile.TarInfo) -> bool:
    """Return whether its bytes lie in the tar as they are: not those of a link, a device, or a file with holes."""
    return member.type in (tarfile.REGTYPE, tarfile.AREGTYPE) and not member.issparse()


def _members(file: _Slice) -> Iterator[tarfile.TarInfo]:
    """Yield the members of a tar but for its folders. Raises tarfile.ReadError unless it is whole."""
    archive = tarfile.open(fileobj=file, mode="r:")  # type: ignore[call-overload]  # noqa: SIM115
    before = -1
    while (member := archive.next()) is not None:
        archive.members.clear()  # it would keep a million of them
        if member.size < 0 or archive.offset <= before:  # it would go back and read on for ever
            raise tarfile.ReadError(f"{member.name} has a size of {member.size}")
        before = archive.offset
        if not member.isdir():
            yield member
    file.seek(archive.offset)
    end = file.read(tarfile.BLOCKSIZE)
    if len(end) < tarfile.BLOCKSIZE or any(end):
        raise tarfile.ReadError(f"no end after {archive.offset:,} bytes")
    for _ in range(_MOST_PADDING // _MOST_HEADER_BYTES):
        more = file.content(_MOST_HEADER_BYTES)
        # what fills up the last record may be anything, but no header
        if any(match.start() % tarfile.BLOCKSIZE == _MAGIC_AT for match in _MAGIC.finditer(more)):
            raise tarfile.ReadError("more follows after its end, as in two tars put together")
        if not more:
            break


class _Slice:
    """A part of a file, for reading as if it were one."""

    def __init__(self, file: IO[bytes] | _Slice, start: int, size: int) -> None:
        self.file, self.start, self.size, self.position = file, start, size, 0

    def tell(self) -> int:
        return self.position

    def seek(self, position: int) -> int:
        self.position = position
        return position

    def read(self, count: int) -> bytes:
        """Return a header, as tarfile asks for it.

        Raises tarfile.ReadError for one that it would not come to an end with.
        """
        if count > _MOST_HEADER_BYTES:
            raise tarfile.ReadError(f"a header claims {count:,} bytes")
        data = self.content(count)
        if sum(len(digits) ** 2 for digits in _DIGITS.findall(data)) > _MOST_DIGITS:
            raise tarfile.ReadError("a header is made of digits")
        return data

    def content(self, count: int) -> bytes:
        """Return the bytes of a member, as they are."""
        self.file.seek(self.start + self.position)
        size = max(0, min(count, self.size - self.position))
        data = self.file.content(size) if isinstance(self.file, _Slice) else self.file.read(size)
        self.position += len(data)
        return data


def _is_image(name: str) -> bool:
    path = PurePosixPath(name)
    return path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".")


def _key(name: str) -> str:
    """Return ``a/b`` of ``a/b.seg.png``."""
    path = PurePosixPath(name)
    return str(path.with_name(path.name.partition(".")[0]))


def _stem(name: str) -> str:
    """Return ``a/b.seg`` of ``a/b.seg.png``."""
    return str(PurePosixPath(name).with_suffix(""))


def _label(data: bytes, name: str) -> int:
    """Return the class in a ``.cls`` or ``.json`` member, -1 where it names none.

    It leaves a note where it has something else. Raises DataError for a number that is no class.
    """
    data = data.removeprefix(codecs.BOM_UTF8)
    value: Any = data
    if not data.strip().isdigit():  # which JSON takes neither with zeros before it nor of any length
        with contextlib.suppress(ValueError, RecursionError):
            value = json.loads(data)
    if isinstance(value, dict):
        value = next((value[key] for key in ("label", "cls", "class") if key in value), None)
    found = None if isinstance(value, (list, dict)) else whole_labels([value])
    if found is None:
        note(name, "its label was left out (it is no whole number)")
        return NONE
    return int(checked_labels(found, name)[0])


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
