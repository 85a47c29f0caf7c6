"""Headers of image files: what is left without them is in the file, and is enough to decode with another's headers."""

from __future__ import annotations

import io
import struct

import numpy as np
import pytest
from codec_support import NAMES, codec_or_skip, photographs
from PIL import Image

from flowmo.comparison.headers import drop_comments, strip_headers
from flowmo.errors import ImageError

LEVELS = {"jpeg": 30, "webp": 40, "avif": 40, "jpeg2000": 30, "jpegxl": 30}


def pieces(part: bytes, whole: bytes) -> int:
    """Into how few runs ``part`` falls that stand in ``whole`` one after the other."""
    place = count = 0
    while part:
        length = next(n for n in range(len(part), 0, -1) if whole.find(part[:n], place) >= 0)
        place, part, count = whole.find(part[:length], place) + length, part[length:], count + 1
    return count


@pytest.mark.parametrize("name", NAMES)
def test_what_is_left_is_in_the_file_and_smaller(name: str) -> None:
    codec = codec_or_skip(name)
    for picture in photographs(2):
        for file in codec.encode(picture, LEVELS[name]):
            left = strip_headers(file)
            assert 0 < len(left) < len(file)
            assert pieces(left, file) <= (24 if name == "jpeg" else 2)  # a progressive JPEG has tables and ten scans


def with_payload(name: str, host: bytes, payload: bytes) -> bytes:
    """A file with the headers of ``host`` and another picture's payload; only lengths are adapted."""
    own = strip_headers(host)
    if name == "webp":
        frame = host[20:23].replace(own[:3], payload[:3]) + host[23:30] + payload[3:]
        chunk = b"VP8 " + struct.pack("<I", len(frame)) + frame + b"\0" * (len(frame) % 2)
        return b"RIFF" + struct.pack("<I", 4 + len(chunk)) + b"WEBP" + chunk
    assert host.count(own) == 1
    file = host.replace(own, payload)
    if name == "avif":
        content = len(host) - host.index(b"mdat") - 4  # of the last box
        for old, extra in ((content, 0), (content + 8, 8)):  # in the table of places, and the box's own length
            assert host.count(struct.pack(">I", old)) == 1
            file = file.replace(struct.pack(">I", old), struct.pack(">I", content - len(own) + len(payload) + extra))
    if name == "jpeg2000":
        place = file.index(b"\xff\x90\x00\x0a") + 6
        file = file[:place] + b"\0\0\0\0" + file[place + 4 :]  # 0: the tile-part reaches to the end
    return file


@pytest.mark.parametrize("size", [(64, 64), (33, 20)])
@pytest.mark.parametrize("name", NAMES)
def test_a_reader_with_other_headers_of_the_same_settings_decodes_it(name: str, size: tuple[int, int]) -> None:
    """So nothing that belongs to the picture was left out of the count."""
    codec = codec_or_skip(name)
    host, guest = (codec.encode(picture.resize(size), LEVELS[name])[0] for picture in photographs(2))
    mixed = codec.decode(with_payload(name, host, strip_headers(guest)))
    assert np.array_equal(np.asarray(mixed), np.asarray(codec.decode(guest)))
    assert not np.array_equal(np.asarray(mixed), np.asarray(codec.decode(host)))


@pytest.mark.parametrize("size", [(64, 64), (8, 8), (300, 17), (17, 300), (513, 40), (64, 48)])
def test_jpegxl_sizes_of_every_kind(size: tuple[int, int]) -> None:
    """The size is told in several forms; a frame begins with the same bits after each."""
    codec = codec_or_skip("jpegxl")
    file = codec.encode(photographs(1)[0].resize(size), 30)[0]
    header = len(file) - len(strip_headers(file))
    assert 4 <= header <= 10
    assert file[header : header + 1] == codec.encode(photographs(1)[0], 30)[0][4:5]


def test_huffman_tables_made_for_the_picture_count_and_standard_ones_do_not() -> None:
    picture = photographs(1)[0]

    def save(**settings: bool) -> bytes:
        buffer = io.BytesIO()
        picture.save(buffer, "JPEG", quality=50, **settings)
        return buffer.getvalue()

    plain, optimized = save(), save(optimize=True)
    scan = optimized[optimized.index(b"\xff\xda") + 14 : -2]
    assert len(strip_headers(optimized)) > len(scan) + 4 * 17
    assert strip_headers(optimized).endswith(scan)
    assert strip_headers(plain) == plain[plain.index(b"\xff\xda") + 14 : -2]


def test_comments_go_and_the_picture_stays() -> None:
    buffer = io.BytesIO()
    exif = Image.Exif()
    exif[0x010E] = "a long description " * 20
    photographs(1)[0].save(buffer, "JPEG", exif=exif, comment="hello", icc_profile=b"p" * 500)
    file = buffer.getvalue()
    short = drop_comments(file)
    assert len(short) < len(file) - 800
    assert strip_headers(short) == strip_headers(file)
    with Image.open(io.BytesIO(short)) as a, Image.open(io.BytesIO(file)) as b:
        assert np.array_equal(np.asarray(a), np.asarray(b))
    with pytest.raises(ImageError, match="JPEG"):
        drop_comments(b"RIFF")


def test_containers_are_left_out_too() -> None:
    picture = photographs(1)[0]
    boxed, bare = io.BytesIO(), io.BytesIO()
    picture.save(boxed, "JPEG2000")
    picture.save(bare, "JPEG2000", no_jp2=True)
    assert strip_headers(boxed.getvalue()) == strip_headers(bare.getvalue())
    imagecodecs = pytest.importorskip("imagecodecs")
    files = [imagecodecs.jpegxl_encode(np.asarray(picture), distance=3, usecontainer=boxed) for boxed in (True, False)]
    assert len(files[0]) > len(files[1])
    assert strip_headers(files[0]) == strip_headers(files[1])
    lossless = io.BytesIO()
    picture.save(lossless, "WEBP", lossless=True)
    assert lossless.getvalue().find(strip_headers(lossless.getvalue())) == 25


@pytest.mark.parametrize("name", NAMES)
def test_a_file_cut_short_is_refused_or_counted_never_worse(name: str) -> None:
    file = codec_or_skip(name).encode(photographs(1)[0], 1)[0]
    refused = 0
    for length in range(0, len(file), 3):
        try:
            assert len(strip_headers(file[:length])) <= length
        except ImageError:
            refused += 1
    assert refused >= 1


@pytest.mark.parametrize("data", [b"", b"hello, this is no picture", b"\x89PNG\r\n\x1a\n" + bytes(50)])
def test_other_formats_are_refused(data: bytes) -> None:
    with pytest.raises(ImageError, match="JPEG"):
        strip_headers(data)
