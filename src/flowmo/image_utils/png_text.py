"""PNG's chunks of text and colour profiles that keep Pillow from reading the image: it is read without them."""

from __future__ import annotations

import io
import zlib
from typing import BinaryIO, cast

from PIL import PngImagePlugin

from .notes import note

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_TEXTS, _PROFILE = (b"tEXt", b"zTXt", b"iTXt"), b"iCCP"
_MOST_CHUNKS = 2**18
_MOST, _MOST_TOGETHER = PngImagePlugin.MAX_TEXT_CHUNK, PngImagePlugin.MAX_TEXT_MEMORY  # unpacked, that Pillow reads
_LONGEST = _MOST + 2**12  # of a packed chunk: a longer one unpacks to more than that


def without_chunks(file: BinaryIO, name: str) -> BinaryIO | None:
    """Return a PNG as it would be without the chunks of text, and the profile, that Pillow does not read.

    They are too large when they are unpacked, or packed in another way. None for a file without them, or no PNG.

    At most a megabyte of it is in memory, and 64 are unpacked. A profile that is left out is noted.
    """
    file.seek(0)
    if file.read(len(_SIGNATURE)) != _SIGNATURE:
        return None
    parts, begin, place, unpacked = [], 0, len(_SIGNATURE), 0
    for _ in range(_MOST_CHUNKS):
        file.seek(place)
        head = file.read(8)
        if len(head) < 8:
            break
        size, kind = int.from_bytes(head[:4]), head[4:]
        after = place + size + 12
        if kind == _PROFILE or kind in _TEXTS:
            length = _unpacked(file, kind, size) if unpacked <= _MOST_TOGETHER else None
            unpacked += _MOST if length is None else length
            if length is None or unpacked > _MOST_TOGETHER:
                parts.append((begin, place))
                begin = after
                if kind == _PROFILE:
                    note(name, f"its colour profile was ignored (it is broken, or has more than {_MOST:,} bytes)")
        place = after
    whole = _Parts(file, [*parts, (begin, file.seek(0, io.SEEK_END))])
    return cast(BinaryIO, whole) if parts else None


def _unpacked(file: BinaryIO, kind: bytes, size: int) -> int | None:
    """Return how many bytes a chunk, whose content follows in the file, has when it is unpacked.

    None is of a chunk that Pillow does not read.
    """
    if kind == b"tEXt":
        return size
    if size > _LONGEST and kind != b"iTXt":
        return None
    content = file.read(min(size, _LONGEST))
    rest = content.partition(b"\0")[2]
    if kind == b"iTXt":
        if rest[:1] in (b"", b"\0"):  # as it is
            return size
        rest = rest[1:2] + rest[2:].split(b"\0", 2)[-1]
    if size > _LONGEST or rest[:1] != b"\0":
        return None
    try:
        length = len(zlib.decompressobj().decompress(rest[1:], _MOST + 1))
    except zlib.error:  # Pillow goes on without its content
        return 0
    return length if length <= _MOST else None


class _Parts(io.RawIOBase):
    """A file that is made of parts of another, from one place to another each."""

    def __init__(self, file: BinaryIO, parts: list[tuple[int, int]]) -> None:
        self.file, self.parts, self.place = file, [part for part in parts if part[0] < part[1]], 0
        self.size = sum(end - begin for begin, end in self.parts)

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self.place

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self.place = offset + (0, self.place, self.size)[whence]
        return self.place

    def read(self, size: int = -1) -> bytes:
        pieces, skip, left = [], self.place, self.size if size < 0 else size
        for begin, end in self.parts:
            if left <= 0:
                break
            if skip >= end - begin:
                skip -= end - begin
                continue
            self.file.seek(begin + skip)
            pieces.append(self.file.read(min(left, end - begin - skip)))
            left, skip = left - len(pieces[-1]), 0
        data = b"".join(pieces)
        self.place += len(data)
        return data
