"""What of an image file is header and what is picture, for the peers at equal bytes (beside Figure 1, FACTS section 2).

A tokenizer's bytes hold no header: its reader knows the size and the settings. Image files say these things again in
every file, which at a few hundred bytes can be most of it. So codecs are counted twice: the whole file, and what is
left when a reader is told the picture's size, the encoder's settings (quality, scale) and every constant table
beforehand. This favours the codecs: the one or two bytes that would tell scale and quality are not counted.

What is left out, beside profiles, EXIF and comments everywhere:
JPEG: markers, quantization tables, the standard Huffman tables (those made for the picture count), all headers.
WebP: RIFF and chunk headers, start code, size, padding.
AVIF: all boxes but mdat, and the sequence headers in that.
JPEG 2000: boxes, main header, tile-part headers, end marker.
JPEG XL: boxes, signature, size and image metadata.
"""

from __future__ import annotations

import functools
import io
import struct
from collections.abc import Iterator

from PIL import Image

from ..errors import ImageError


def strip_headers(data: bytes) -> bytes:
    """Return the bytes of an image file that a reader who knows its size and settings still needs.

    The format is told by the first bytes.
    Raises ImageError for another format, or for a file that ends too early.
    """
    try:
        if data[:2] == b"\xff\xd8":
            return _jpeg(data)
        if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
            return _webp(data)
        if data[4:8] == b"ftyp":
            return b"".join(_without_sequence_headers(body) for kind, body in _boxes(data) if kind == b"mdat")
        if data[:4] == b"\xff\x4f\xff\x51":
            return _jpeg2000(data)
        if data[4:8] == b"jP  ":
            return b"".join(_jpeg2000(body) for kind, body in _boxes(data) if kind == b"jp2c")
        if data[:2] == b"\xff\x0a":
            return _jpegxl(data)
        if data[4:8] == b"JXL ":
            return b"".join(_jpegxl(body) for kind, body in _boxes(data) if kind == b"jxlc")
    except (IndexError, struct.error):
        raise ImageError("the image file ends too early to tell its headers from its picture") from None
    raise ImageError("only the headers of JPEG, WebP, AVIF, JPEG 2000 and JPEG XL files are known")


def drop_comments(data: bytes) -> bytes:
    """Return a JPEG file or JPEG 2000 codestream without the segments that say nothing of the picture.

    These are JFIF, EXIF, profiles and the encoder's name, all before the picture; any decoder reads the rest alike.
    Raises ImageError for other data.
    """
    if data[:3] not in (b"\xff\xd8\xff", b"\xff\x4f\xff"):
        raise ImageError("comments can be dropped from JPEG files and JPEG 2000 codestreams only")
    jpeg = data[1] == 0xD8
    spoken, first = ({*range(0xE0, 0xF0), 0xFE}, 0xDA) if jpeg else ({0x64}, 0x90)
    kept, place = [data[:2]], 2
    while data[place + 1] != first:
        end = place + 2 + _u16(data, place + 2)
        if data[place + 1] not in spoken:
            kept.append(data[place:end])
        place = end
    return b"".join([*kept, data[place:]])


def _jpeg(data: bytes) -> bytes:
    """Return a JPEG's entropy-coded data and the Huffman tables made for it.

    By ITU-T T.81 a file is marker segments, and after each start of scan coded data up to the next marker.
    """
    kept, place = [], 2
    while data[place + 1] != 0xD9:
        marker, length = data[place + 1], _u16(data, place + 2)
        body, place = data[place + 4 : place + 2 + length], place + 2 + length
        if marker == 0xC4:
            kept += [table for table in _huffman_tables(body) if table[1:] not in _standard_huffman_tables()]
        elif marker == 0xDA:
            end = place
            while data[end] != 0xFF or data[end + 1] == 0 or 0xD0 <= data[end + 1] <= 0xD7:
                end += 1
            kept.append(data[place:end])
            place = end
    return b"".join(kept)


def _huffman_tables(body: bytes) -> Iterator[bytes]:
    """Yield each table of a segment: class and id, 16 counts, the symbols."""
    place = 0
    while place < len(body):
        end = place + 17 + sum(body[place + 1 : place + 17])
        yield body[place:end]
        place = end


@functools.cache
def _standard_huffman_tables() -> frozenset[bytes]:
    """Return the tables of Annex K, which an encoder that does not optimize writes, without class and id."""
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8)).save(buffer, "JPEG", quality=50)
    data, place, tables = buffer.getvalue(), 2, set[bytes]()
    while data[place + 1] != 0xDA:
        length = _u16(data, place + 2)
        if data[place + 1] == 0xC4:
            tables |= {table[1:] for table in _huffman_tables(data[place + 4 : place + 2 + length])}
        place += 2 + length
    return frozenset(tables)


def _webp(data: bytes) -> bytes:
    kept, place = [], 12
    while place + 8 <= len(data):
        kind, length = data[place : place + 4], struct.unpack_from("<I", data, place + 4)[0]
        body = data[place + 8 : place + 8 + length]
        if kind == b"VP8 ":
            kept += [body[:3], body[10:]]  # without the start code and the size, RFC 6386, 9.1
        elif kind == b"VP8L":
            kept.append(body[5:])  # without the signature and the size
        elif kind == b"ALPH":
            kept.append(body)
        place += 8 + length + length % 2
    return b"".join(kept)


def _jpeg2000(data: bytes) -> bytes:
    """Return the data of the tile-parts of a JPEG 2000 codestream.

    By ITU-T T.800 they follow the main header; SOT has the length of each, 0 meaning up to the end.
    """
    kept, place = [], 2
    while data[place : place + 2] != b"\xff\x90":
        place += 2 + _u16(data, place + 2)
    while data[place : place + 2] == b"\xff\x90":
        length = struct.unpack_from(">I", data, place + 6)[0]
        end = place + length if length else len(data) - 2
        place += 12
        while data[place : place + 2] != b"\xff\x93":
            place += 2 + _u16(data, place + 2)
        kept.append(data[place + 2 : end])
        place = end
    return b"".join(kept)


def _jpegxl(data: bytes) -> bytes:
    """Return the frames of a JPEG XL codestream.

    By ISO 18181-1 they follow signature, SizeHeader and ImageMetadata, each from a whole byte on.
    Metadata that are not the default (sRGB, 8 bits) are not parsed and count as picture.
    """
    bits, place = int.from_bytes(data[2:18], "little"), 0

    def read(count: int) -> int:
        nonlocal place
        place += count
        return bits >> (place - count) & ((1 << count) - 1)

    small = read(1)
    read(5 if small else (9, 13, 18, 30)[read(2)])  # height
    if read(3) == 0:  # no fixed ratio: the width follows
        read(5 if small else (9, 13, 18, 30)[read(2)])
    whole = place // 8
    all_default = read(1) and read(1)  # of the metadata and of the transform
    return data[2 + (-(-place // 8) if all_default else whole) :]


def _boxes(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yield (type, content) of each box at the top of an ISO base media file."""
    place = 0
    while place < len(data):
        length, kind = struct.unpack_from(">I4s", data, place)
        start = place + 8
        if length == 1:
            length, start = struct.unpack_from(">Q", data, start)[0], start + 8
        end = place + length if length else len(data)
        if not start <= end <= len(data):
            raise IndexError
        yield kind, data[start:end]
        place = end


def _without_sequence_headers(data: bytes) -> bytes:
    """Return the open bitstream units of AV1 data (AV1, section 5.3) that a picture needs.

    Sequence headers (1), delimiters (2) and padding (15) are left out.
    """
    kept, place = [], 0
    while place < len(data):
        kind, start = data[place] >> 3 & 15, place + 1 + (data[place] >> 2 & 1)
        size = shift = 0
        if data[place] & 2:
            while True:
                byte = data[start]
                size |= (byte & 127) << shift
                start, shift = start + 1, shift + 7
                if byte < 128:
                    break
        else:
            size = len(data) - start
        if kind not in (1, 2, 15):
            kept.append(data[place : start + size])
        place = start + size
    return b"".join(kept)


def _u16(data: bytes, place: int) -> int:
    return struct.unpack_from(">H", data, place)[0]
