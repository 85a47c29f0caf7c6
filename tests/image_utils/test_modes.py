"""What each mode becomes (docs/DATA.md): every row of the table, with the right pixels computed here."""

from __future__ import annotations

import io
import logging
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms

from flowmo import samples
from flowmo.data import decode
from flowmo.errors import ImageError
from flowmo.image_utils import notes

RAMP = np.arange(256, dtype=np.uint8).reshape(8, 32)


@pytest.fixture(autouse=True)
def nothing_said() -> None:
    notes._said.clear()


def grey(data: bytes) -> np.ndarray:
    pixels = np.asarray(decode(data, "some.tif"))
    assert (pixels == pixels[..., :1]).all()
    return pixels[..., 0]


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def tiff(values: np.ndarray, bits: int, photometric: int = 1, sample_format: int = 1, packed: bytes = b"") -> bytes:
    """An uncompressed grey TIFF of one strip, by the numbers of TIFF 6.0."""
    data = packed or values.tobytes()
    height, width = values.shape
    tags = {256: width, 257: height, 258: bits, 259: 1, 262: photometric, 273: 0, 277: 1, 278: height, 279: len(data)}
    tags[339] = sample_format
    tags[273] = 8 + 2 + 12 * len(tags) + 4
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in sorted(tags.items()))
    return b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + b"\0\0\0\0" + data


def png(values: np.ndarray, bits: int, colour: int, transparent: bytes = b"") -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    if bits == 16:
        rows = [row.astype(">u2").tobytes() for row in values]
    else:
        rows = [np.packbits([int(b) for v in row for b in f"{v:0{bits}b}"]).tobytes() for row in values]
    width = values.shape[1] // (3 if colour == 2 else 1)
    header = struct.pack(">IIBBBBB", width, values.shape[0], bits, colour, 0, 0, 0)
    clear = chunk(b"tRNS", transparent) if transparent else b""
    data = zlib.compress(b"".join(b"\0" + row for row in rows))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + clear + chunk(b"IDAT", data) + chunk(b"IEND", b"")


@pytest.mark.parametrize("photometric", [0, 1])
@pytest.mark.parametrize(
    ("values", "bits", "kind"),
    [
        (RAMP, 8, 1),
        (RAMP.astype("<u2") * 257, 16, 1),
        ((RAMP / 255).astype("<f4"), 32, 3),
        (RAMP.astype("<f4"), 32, 3),
    ],
    ids=["8", "16", "float 1", "float 255"],
)
def test_white_is_zero(values: np.ndarray, bits: int, kind: int, photometric: int) -> None:
    expected = RAMP if photometric else 255 - RAMP
    assert np.array_equal(grey(tiff(values, bits, photometric, kind)), expected)


def test_twelve_bits_in_tiff() -> None:
    values = np.round(RAMP.astype(float) * 4095 / 255).astype(int)
    bits = np.unpackbits(values.astype(">u2").reshape(8, 32, 1).view(np.uint8), axis=-1)[..., 4:]
    packed = np.packbits(bits.reshape(8, -1), axis=1).tobytes()
    assert np.array_equal(grey(tiff(values, 12, packed=packed)), RAMP)


def test_signed_sixteen_bits() -> None:
    values = np.round(RAMP.astype(float) * 32767 / 255).astype("<i2")
    assert np.array_equal(grey(tiff(values, 16, sample_format=2)), RAMP)
    with pytest.raises(ImageError, match=r"some\.tif.*-32767"):
        grey(tiff(-values, 16, sample_format=2))


def test_thirty_two_bits_are_read_as_sixteen() -> None:
    assert np.array_equal(grey(tiff(RAMP.astype("<i4") * 257, 32, sample_format=2)), RAMP)
    with pytest.raises(ImageError, match="65536"):
        grey(tiff(np.full((2, 2), 65536, "<i4"), 32, sample_format=2))


@pytest.mark.parametrize("largest", [255, 1023, 4095])
def test_few_bits_in_sixteen_are_noted(largest: int, caplog: pytest.LogCaptureFixture) -> None:
    values = np.round(RAMP.astype(float) * largest / 255).astype("<u2")
    for _ in range(2):  # noted once
        assert grey(tiff(values, 16)).max() == round(largest / 257)
    assert len(caplog.records) == 1
    assert "some.tif" in caplog.text
    assert str(largest) in caplog.text


@pytest.mark.parametrize("beyond", [1.0001, 1.04, -0.03])
def test_floats_just_beyond_one_are_clipped(beyond: float) -> None:
    values = (RAMP / 255).astype("<f4")
    place, expected = (-1, 255) if beyond > 1 else (0, 0)
    values.flat[place] = beyond
    found = grey(tiff(values, 32, sample_format=3))
    assert found.flat[place] == expected
    assert np.array_equal(found, RAMP)


@pytest.mark.parametrize("one", [1.2, 2.0, 50.0, 255.0, 1e9, np.inf, np.nan, -1.0])
def test_floats_with_one_value_far_beyond_are_refused(one: float) -> None:
    values = np.resize((RAMP / 255).astype("<f4"), (64, 64))
    values[5, 5] = one
    with pytest.raises(ImageError, match=r"some\.tif"):
        grey(tiff(values, 32, sample_format=3))


@pytest.mark.parametrize("bits", [1, 2, 4, 8, 16])
def test_one_transparent_grey_of_any_depth(bits: int) -> None:
    top = 2**bits - 1
    values = np.round(RAMP.astype(float) * top / 255).astype(int)
    key = int(values[3, 7])
    expected = np.where(values == key, 255, np.round(values * (255 / top)))
    found = grey(png(values, bits, 0, struct.pack(">H", key)))
    assert np.array_equal(found, expected)


def test_one_transparent_colour_of_sixteen_bits() -> None:
    values = np.stack([RAMP, RAMP[::-1], RAMP[:, ::-1]], -1).astype(int) * 257
    clear = values[2, 3]
    found = np.asarray(decode(png(values.reshape(8, -1), 16, 2, struct.pack(">HHH", *clear)), "x"))[:, :, 0]
    expected = np.where((values == clear).all(-1), 255, RAMP)
    assert np.array_equal(found, expected)


def photo() -> Image.Image:
    return Image.open(next(p for p in samples.paths() if p.stem == "coffee")).convert("RGB")


def matrix_profile(gamma: float, primaries: list[tuple[float, float, float]]) -> bytes:
    """An RGB profile of ICC version 2 by its primaries in XYZ (D50) and a plain gamma."""

    def xyz(values: tuple[float, float, float]) -> bytes:
        return b"XYZ \0\0\0\0" + struct.pack(">iii", *(round(v * 65536) for v in values))

    curve = b"curv\0\0\0\0" + struct.pack(">IH", 1, round(gamma * 256)) + b"\0\0"
    text = b"desc\0\0\0\0" + struct.pack(">I", 5) + b"test\0" + bytes(78)
    text += bytes(-len(text) % 4)
    tags = {b"desc": text, b"cprt": b"text\0\0\0\0none\0\0\0\0", b"wtpt": xyz((0.9642, 1.0, 0.8249))}
    tags |= {name: xyz(value) for name, value in zip((b"rXYZ", b"gXYZ", b"bXYZ"), primaries, strict=True)}
    tags |= dict.fromkeys((b"rTRC", b"gTRC", b"bTRC"), curve)
    place, table, body = 128 + 4 + 12 * len(tags), b"", b""
    for name, data in tags.items():
        table += name + struct.pack(">II", place + len(body), len(data))
        body += data
    header = struct.pack(">I4sI4s4s4s", place + len(body), b"lcms", 0x02100000, b"mntr", b"RGB ", b"XYZ ")
    header += bytes(12) + b"acsp" + bytes(28) + struct.pack(">iii", 63190, 65536, 54061) + bytes(48)
    return header + struct.pack(">I", len(tags)) + table + body


ADOBE = [(0.60974, 0.31111, 0.01947), (0.20528, 0.62567, 0.06087), (0.14919, 0.06322, 0.74457)]
DISPLAY = [(0.51512, 0.24120, -0.00105), (0.29198, 0.69225, 0.04189), (0.15710, 0.06657, 0.78407)]


@pytest.mark.parametrize(("gamma", "primaries"), [(2.2, ADOBE), (1.8, DISPLAY)], ids=["wide", "display"])
@pytest.mark.parametrize("kind", ["PNG", "TIFF", "WEBP", "JPEG", "AVIF"])
def test_a_colour_profile_is_applied(gamma: float, primaries: list[tuple[float, float, float]], kind: str) -> None:
    profile = matrix_profile(gamma, primaries)
    there = ImageCms.ImageCmsProfile(io.BytesIO(profile))
    stored = ImageCms.profileToProfile(photo(), ImageCms.createProfile("sRGB"), there)
    options = {"PNG": {}, "TIFF": {}, "WEBP": {"lossless": True}, "JPEG": {"quality": 98}, "AVIF": {"quality": 98}}
    data = encoded(stored, kind, icc_profile=profile, **options[kind])
    wrong = np.abs(np.asarray(stored).astype(int) - np.asarray(photo())).mean()
    error = np.abs(np.asarray(decode(data, "x")).astype(int) - np.asarray(photo())).mean()
    assert wrong > 5
    assert error < (0.6 if kind in ("PNG", "TIFF", "WEBP") else 2.5)


def test_a_profile_of_srgb_leaves_the_pixels() -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    assert np.array_equal(np.asarray(decode(encoded(photo(), "PNG", icc_profile=profile), "x")), np.asarray(photo()))


def test_a_profile_below_transparency() -> None:
    rgba = photo()
    rgba.putalpha(Image.fromarray(np.repeat(np.uint8([0, 255]), 128)[None].repeat(rgba.height, 0)))
    found = np.asarray(decode(encoded(rgba, "PNG", icc_profile=matrix_profile(2.2, ADOBE)), "x"))
    whole = np.asarray(decode(encoded(photo(), "PNG", icc_profile=matrix_profile(2.2, ADOBE)), "x"))
    assert (found[:, :128] == 255).all()
    assert np.array_equal(found[:, 128:], whole[:, 128:])


@pytest.mark.parametrize(
    "profile",
    [
        b"rubbish" * 40,
        matrix_profile(2.2, ADOBE)[:300],
        bytes(128),
        matrix_profile(2.2, ADOBE).replace(b"RGB ", b"CMYK"),
    ],
    ids=["rubbish", "cut", "zeros", "other mode"],
)
def test_a_broken_profile_is_ignored_with_a_note(profile: bytes, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    data = encoded(photo(), "PNG", icc_profile=profile)
    assert np.array_equal(np.asarray(decode(data, "my.png")), np.asarray(photo()))
    assert "my.png" in caplog.text
    assert "profile" in caplog.text


def test_lab_without_a_profile() -> None:
    lab = ImageCms.profileToProfile(
        photo(), ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), outputMode="LAB"
    )
    error = np.abs(np.asarray(decode(encoded(lab, "TIFF"), "x")).astype(int) - np.asarray(photo()))
    assert error.mean() < 2


SIDE = 11_300  # 127.7 megapixels
PEAK = """
import resource, sys
from pathlib import Path
from flowmo.data import decode
from flowmo.errors import ImageError
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
try:
    decode(Path(sys.argv[1]), "large")
except ImageError as error:
    print(error, file=sys.stderr)
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024)
"""


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "RGBA", "LA", "I;16", "F", "CMYK", "RGB webp", "RGB turned"])
def test_no_image_takes_more_than_a_gigabyte(mode: str, tmp_path: Path) -> None:
    import subprocess
    import sys

    mode, _, kind = mode.partition(" ")
    if mode == "CMYK" or mode == "F":
        suffix, options = "tif", {"compression": "tiff_adobe_deflate"}
    else:
        suffix, options = ("webp" if kind == "webp" else "png"), {}
    if kind == "turned":
        exif = Image.Exif()
        exif[0x0112] = 6
        options["exif"] = exif
    Image.new(mode, (SIDE, SIDE)).save(tmp_path / f"a.{suffix}", **options)
    command = [sys.executable, "-W", "ignore", "-c", PEAK, str(tmp_path / f"a.{suffix}")]
    result = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert result.returncode == 0, result.stderr
    assert not result.stderr or "too large" in result.stderr
    assert int(result.stdout) < 1.1 * 2**30
