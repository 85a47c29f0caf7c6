"""Sizes that the pages of a Parquet file claim, read before anything is unpacked.

A row group says in the footer how large it is, and its pages say it again. Whoever unpacks them believes the pages: a
file of 39 kB can ask for gigabytes while its footer claims next to nothing. Both are written in Thrift's compact
protocol, of which this file reads as much as it needs (parquet.thrift: FileMetaData, ColumnMetaData, PageHeader).
"""

from __future__ import annotations

from pathlib import Path
from typing import IO, Any, NamedTuple

_WINDOW, _MOST_IN_HEADER = 2**12, 2**24  # bytes of a page's header read at once, and at most (that of pyarrow)
_DEEP = 32  # structs inside each other; the format has seven


class Chunk(NamedTuple):
    """Where the pages of one column of one row group lie in the file, in bytes."""

    start: int  # the first byte
    length: int  # how many bytes


def column_chunks(file: Path) -> list[dict[str, Chunk]]:
    """Return, for each row group, the place of each column's pages; columns have dotted names, such as ``image.bytes``.

    Raises ValueError where the footer is none.
    """
    with file.open("rb") as stream:
        stream.seek(-8, 2)
        length = int.from_bytes(stream.read(8)[:4], "little")
        stream.seek(-8 - length, 2)
        footer = _Thrift(stream.read(length))
    try:
        return [dict(map(_chunk, group.get(1, []))) for group in footer.struct().get(4, [])]
    except (IndexError, TypeError, AttributeError) as error:
        raise ValueError(f"broken footer ({error})") from None


def unpacked_size(stream: IO[bytes], chunk: Chunk) -> int:
    """Return the bytes that the pages of a column claim to have when they are unpacked.

    Pages that cannot be read end the count: whoever unpacks them does not come further either.
    """
    total, place, end = 0, chunk.start, chunk.start + chunk.length
    while place < end:
        for window in (_WINDOW, _MOST_IN_HEADER):
            stream.seek(place)
            header = _Thrift(stream.read(window))
            try:
                page = header.struct()
                break
            except (IndexError, ValueError):
                page = {}
        unpacked, packed = page.get(2), page.get(3)
        if not isinstance(unpacked, int) or not isinstance(packed, int) or packed < 0:
            return total
        total += max(unpacked, 0)
        place += header.place + packed
    return total


def _chunk(column: dict[int, Any]) -> tuple[str, Chunk]:
    about = column[3]
    start, dictionary = about[9], about.get(11, 0)
    if 0 < dictionary < start:
        start = dictionary
    return ".".join(name.decode(errors="replace") for name in about[3]), Chunk(max(start, 0), about[7])


class _Thrift:
    """A reader of Thrift's compact protocol: structs as dicts by field number. IndexError where the bytes end."""

    def __init__(self, data: bytes) -> None:
        self.data, self.place = data, 0

    def struct(self, deep: int = 0) -> dict[int, Any]:
        found: dict[int, Any] = {}
        field = 0
        while byte := self._byte():
            kind, step = byte & 15, byte >> 4
            field = field + step if step else self._signed()
            found[field] = kind == 1 if kind in (1, 2) else self._value(kind, deep)
        return found

    def _value(self, kind: int, deep: int) -> Any:
        if deep > _DEEP:
            raise ValueError("values inside each other without end")
        if kind in (1, 2, 3):  # of lists, where a truth value is a byte too
            return self._byte()
        if kind in (4, 5, 6):
            return self._signed()
        if kind in (7, 8):
            return self._bytes(8 if kind == 7 else self._varint())
        if kind in (9, 10):
            byte = self._byte()
            count = self._varint() if byte >> 4 == 15 else byte >> 4
            return [self._value(byte & 15, deep + 1) for _ in range(count)]
        if kind == 11:
            count = self._varint()
            kinds = self._byte() if count else 0
            return [(self._value(kinds >> 4, deep + 1), self._value(kinds & 15, deep + 1)) for _ in range(count)]
        if kind == 12:
            return self.struct(deep + 1)
        raise ValueError(f"a value of kind {kind}")

    def _byte(self) -> int:
        byte = self.data[self.place]
        self.place += 1
        return byte

    def _bytes(self, count: int) -> bytes:
        if self.place + count > len(self.data):
            raise IndexError("the bytes end inside a value")
        self.place += count
        return self.data[self.place - count : self.place]

    def _varint(self) -> int:
        value = shift = 0
        while True:
            byte = self._byte()
            value |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return value
            if shift > 63:
                raise ValueError("a number without end")

    def _signed(self) -> int:
        value = self._varint()
        return value >> 1 ^ -(value & 1)
