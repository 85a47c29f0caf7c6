"""Images that would take far more work or memory than their pixels are worth, and TIFFs that Pillow misreads."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, TiffImagePlugin

from flowmo.data import decode
from flowmo.errors import ImageError

RAMP = np.arange(256, dtype=np.uint8).reshape(8, 32)


def jpeg(**options: object) -> bytes:
    buffer = io.BytesIO()
    pixels = np.stack([RAMP, RAMP[::-1], 255 - RAMP], -1)
    Image.fromarray(pixels).save(
        buffer, "JPEG", exif=b"Exif\0\0" + b"\xff\xda" * 3000, **options
    )  # two bytes of a scan
    return buffer.getvalue()


def tiff(tags: dict[int, tuple[int, ...]], data: bytes) -> bytes:
    """A TIFF of LONG tags whose data follow its directory; 0 in the tag of their offset stands for it."""
    start = 8 + 2 + 12 * len(tags) + 4
    values = {tag: value for tag, value in tags.items() if len(value) > 1}
    places = {}
    extra = b""
    for tag, value in values.items():
        places[tag] = start + len(extra)
        extra += struct.pack(f"<{len(value)}I", *value)
    entries = b""
    for tag, value in sorted(tags.items()):
        number = places.get(tag, value[0])
        if tag in (273, 324):
            number = start + len(extra)
        entries += struct.pack("<HHII", tag, 4, len(value), number)
    return b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + b"\0\0\0\0" + extra + data


GREY = {256: (32,), 257: (8,), 258: (8,), 259: (1,), 262: (1,), 277: (1,), 278: (8,), 273: (0,), 279: (256,)}


@pytest.mark.parametrize("progressive", [False, True])
def test_jpegs_of_few_scans_are_read(progressive: bool) -> None:
    assert decode(jpeg(progressive=progressive), "x.jpg").size == (32, 8)


@pytest.mark.parametrize("count", [100, 1_000])
def test_a_jpeg_of_endless_scans_is_refused(count: int) -> None:
    data = jpeg(progressive=True)
    last = data[data.rindex(b"\xff\xda") : -2]
    with pytest.raises(ImageError, match=r"x\.jpg.*64 scans"):
        decode(data[:-2] + last * count + data[-2:], "x.jpg")


def test_a_tile_far_larger_than_its_image_is_refused() -> None:
    side = 8192
    data = zlib.compress(bytes(side * side))
    tags = {name: value for name, value in GREY.items() if name not in (273, 278, 279)}
    tags |= {259: (8,), 322: (side,), 323: (side,), 324: (0,), 325: (len(data),)}
    with pytest.raises(ImageError, match="a tile of 67,108,864 pixels for an image of 256"):
        decode(tiff(tags, data), "x.tif")
    tags |= {322: (64,), 323: (64,)}
    tile = np.zeros((64, 64), np.uint8)
    tile[:8, :32] = RAMP
    data = zlib.compress(tile.tobytes())
    assert np.array_equal(np.asarray(decode(tiff(tags | {325: (len(data),)}, data), "x.tif"))[..., 0], RAMP)


def test_channels_of_sixteen_bits_that_lie_apart_are_refused() -> None:
    deep = np.stack([RAMP, RAMP[::-1], 255 - RAMP]).astype("<u2") * 257
    size = deep[0].nbytes
    tags = GREY | {258: (16, 16, 16), 262: (2,), 277: (3,), 284: (2,), 273: (0, 0, 0), 279: (size,) * 3}
    data = bytearray(tiff(tags, deep.tobytes()))
    pixels, entry = len(data) - deep.nbytes, data.index(struct.pack("<HHI", 273, 4, 3))
    data[entry + 8 : entry + 12] = struct.pack("<I", len(data))
    data += struct.pack("<3I", *(pixels + channel * size for channel in range(3)))
    with pytest.raises(ImageError, match="16 bits lie apart"):
        decode(bytes(data), "x.tif")


def test_bytes_with_a_sign_are_refused() -> None:
    with pytest.raises(ImageError, match="with a sign"):
        decode(tiff(GREY | {339: (2,)}, RAMP.tobytes()), "x.tif")


def test_three_dimensions_are_refused() -> None:
    with pytest.raises(ImageError, match="three dimensions"):
        decode(tiff(GREY | {32997: (2,)}, RAMP.tobytes() * 2), "x.tif")


def test_a_palette_of_eight_bits_where_sixteen_belong() -> None:
    for scale in (1, 257):
        colours = tuple(int(v) * scale for channel in (RAMP, RAMP[::-1], 255 - RAMP) for v in channel.ravel())
        found = np.asarray(decode(tiff(GREY | {262: (3,), 320: colours}, RAMP.tobytes()), "x.tif"))
        assert np.array_equal(found, np.stack([RAMP, RAMP[::-1], 255 - RAMP], -1))


def strips(count: int, long: bool = False) -> bytes:
    """A grey TIFF of one column whose every row is a strip; long: as BigTIFF, with sizes of 64 bits."""
    width, start = (20, 16 + 8 + 20 * 9 + 8) if long else (12, 8 + 2 + 12 * 9 + 4)
    kind, form = (16, "<HHQQ") if long else (4, "<HHII")
    tags = {256: (1,), 257: (count,), 258: (8,), 259: (1,), 262: (1,), 273: (0,) * count, 277: (1,), 278: (1,)}
    tags |= {279: (1,) * count}
    size = width // 3 + (long and 2)
    entries = b"".join(
        struct.pack(form, tag, kind, len(v), v[0] if len(v) == 1 else start + (tag == 279) * count * size)
        for tag, v in tags.items()
    )
    places = struct.pack(f"<{2 * count}{'Q' if long else 'I'}", *[start + 2 * count * size] * count, *[1] * count)
    if long:
        return b"II+\0\10\0\0\0" + struct.pack("<QQ", 16, len(tags)) + entries + bytes(8) + places + b"\xff"
    return b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + bytes(4) + places + b"\xff"


@pytest.mark.parametrize("long", [False, True], ids=["TIFF", "BigTIFF"])
def test_millions_of_strips_are_refused_before_they_are_listed(
    long: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert (np.asarray(decode(strips(100, long), "x")) == 255).all()
    listed = []
    opened = TiffImagePlugin.TiffImageFile._setup
    monkeypatch.setattr(TiffImagePlugin.TiffImageFile, "_setup", lambda self: (listed.append(1), opened(self)))
    (tmp_path / "a.tif").write_bytes(strips(2_000_000, long))
    for file in (tmp_path / "a.tif", (tmp_path / "a.tif").read_bytes()):
        with pytest.raises(ImageError, match=r"a\.tif.*2,000,000 strips or tiles"):
            decode(file, "a.tif")
    assert not listed
