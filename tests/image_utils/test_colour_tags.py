"""Colours that a file names by numbers instead of a profile, in every format: converted to sRGB, or a note."""

from __future__ import annotations

import io
import logging
import struct
import zlib
from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image, ImageCms

from flowmo import samples
from flowmo.data import decode
from flowmo.image_utils import notes

P3 = [[0.680, 0.320], [0.265, 0.690], [0.150, 0.060]]
ADOBE = [[0.64, 0.33], [0.21, 0.71], [0.15, 0.06]]
BT2020 = [[0.708, 0.292], [0.170, 0.797], [0.131, 0.046]]
SRGB = [[0.64, 0.33], [0.30, 0.60], [0.15, 0.06]]


@pytest.fixture(autouse=True)
def nothing_said() -> None:
    notes._said.clear()


@pytest.fixture(scope="module")
def photo() -> np.ndarray:
    return np.asarray(Image.open(next(p for p in samples.paths() if p.stem == "coffee")).convert("RGB"))


def matrix(primaries: list[list[float]]) -> np.ndarray:
    """Linear RGB of these primaries, with D65 as white, to XYZ, by its definition."""
    columns = np.array([[x / y, 1, (1 - x - y) / y] for x, y in primaries]).T
    white = np.array([0.3127 / 0.3290, 1, (1 - 0.3127 - 0.3290) / 0.3290])
    return columns * np.linalg.solve(columns, white)


def light(values: np.ndarray) -> np.ndarray:
    return np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)


def srgb_curve(values: np.ndarray) -> np.ndarray:
    values = values.clip(0, 1)
    return np.where(values <= 0.0031308, values * 12.92, 1.055 * values ** (1 / 2.4) - 0.055)


def stored_as(
    pixels: np.ndarray, primaries: list[list[float]], curve: Callable[[np.ndarray], np.ndarray]
) -> np.ndarray:
    """The same colours in another space, in 8 bits."""
    change = np.linalg.inv(matrix(primaries)) @ matrix(SRGB)
    return np.round(curve((light(pixels / 255) @ change.T).clip(0, 1)) * 255).astype(np.uint8)


def png(pixels: np.ndarray, *chunks: tuple[bytes, bytes], **options: object) -> bytes:
    """A PNG with these chunks behind its header."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG", **options)
    data, more = buffer.getvalue(), b""
    for kind, content in chunks:
        more += struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
    return data[:33] + more + data[33:]


def chrm(primaries: list[list[float]], white: tuple[float, float] = (0.3127, 0.3290)) -> tuple[bytes, bytes]:
    values = [*white, *(v for pair in primaries for v in pair)]
    return b"cHRM", struct.pack(">8I", *(round(v * 100_000) for v in values))


def gama(value: float) -> tuple[bytes, bytes]:
    return b"gAMA", struct.pack(">I", round(value * 100_000))


def error(data: bytes, wanted: np.ndarray, name: str = "x") -> float:
    return float(np.abs(np.asarray(decode(data, name)).astype(int) - wanted).mean())


def power(exponent: float) -> Callable[[np.ndarray], np.ndarray]:
    return lambda values: values**exponent


@pytest.mark.parametrize(
    ("primaries", "curve", "chunks", "most"),
    [
        (P3, srgb_curve, [(b"cICP", bytes([12, 13, 0, 1]))], 0.6),
        (BT2020, srgb_curve, [(b"cICP", bytes([9, 14, 0, 1]))], 1.0),
        (SRGB, power(1), [(b"cICP", bytes([1, 8, 0, 1]))], 2.5),  # eight bits of light are coarse where it is dark
        (P3, power(1 / 2.2), [(b"cICP", bytes([12, 4, 0, 1]))], 0.6),
        (P3, srgb_curve, [chrm(P3)], 0.6),
        (P3, srgb_curve, [gama(0.45455), chrm(P3)], 0.6),
        (ADOBE, power(0.6), [gama(0.6), chrm(ADOBE)], 0.8),
        (SRGB, power(1), [gama(1.0)], 2.5),
    ],
    ids=["P3", "BT.2020", "linear", "P3 with 2.2", "cHRM", "gAMA and cHRM", "wide gamma", "gAMA"],
)
def test_numbers_of_a_png_are_applied(
    photo: np.ndarray, primaries: list[list[float]], curve: Callable, chunks: list, most: float
) -> None:
    stored = stored_as(photo, primaries, curve)
    assert np.abs(stored.astype(int) - photo).mean() > 2
    assert error(png(stored, *chunks), photo) < most


@pytest.mark.parametrize(
    "chunks",
    [
        [(b"cICP", bytes([1, 13, 0, 1]))],
        [(b"cICP", bytes([1, 1, 0, 1]))],
        [gama(0.45455)],
        [gama(0.45455), chrm(SRGB)],
        [(b"sRGB", b"\0"), gama(1.0), chrm(P3)],
    ],
    ids=["sRGB", "video", "gAMA", "gAMA and cHRM", "sRGB before others"],
)
def test_numbers_of_srgb_leave_the_pixels(
    photo: np.ndarray, chunks: list[tuple[bytes, bytes]], caplog: pytest.LogCaptureFixture
) -> None:
    assert error(png(photo, *chunks), photo) == 0
    assert not caplog.records


@pytest.mark.parametrize(
    "chunk",
    [
        (b"cICP", bytes([9, 16, 0, 1])),
        (b"cICP", bytes([9, 18, 0, 1])),
        (b"cICP", bytes([12, 13, 0, 0])),
        (b"cICP", bytes([200, 13, 0, 1])),
        gama(0),
        gama(400),
        chrm([[0.1, 0.1], [0.2, 0.2], [0.3, 0.3]]),
        chrm(SRGB, (0.3, 0.0)),
    ],
    ids=["PQ", "HLG", "narrow", "unknown", "no gamma", "wild gamma", "one line", "no white"],
)
def test_what_cannot_be_converted_plainly_is_noted(
    photo: np.ndarray, chunk: tuple[bytes, bytes], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    assert error(png(photo, chunk), photo, "my.png") == 0
    assert "my.png" in caplog.text
    assert "not sRGB" in caplog.text


def test_a_profile_is_taken_before_gamma_and_after_code_points(photo: np.ndarray) -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    assert error(png(photo, gama(1.0), chrm(P3), icc_profile=profile), photo) == 0
    stored = stored_as(photo, P3, srgb_curve)
    assert error(png(stored, (b"cICP", bytes([12, 13, 0, 1])), icc_profile=profile), photo) < 0.6
    assert error(png(photo, (b"cICP", bytes([9, 16, 0, 1])), icc_profile=profile), photo) == 0  # PQ is not told plainly


def test_a_grey_png_in_light(photo: np.ndarray) -> None:
    ramp = np.arange(256, dtype=np.uint8).reshape(8, 32)
    expected = np.round(srgb_curve(ramp / 255) * 255)
    for chunk in (gama(1.0), (b"cICP", bytes([1, 8, 0, 1]))):
        found = np.asarray(decode(png(ramp, chunk), "x"))
        assert np.abs(found.astype(int) - expected[..., None]).max() <= 1


def interop(index: bytes | None, space: int) -> bytes:
    """EXIF with a colour space and, where one is given, an interoperability index."""
    exif = Image.Exif()
    exif[0x8769] = {0xA001: space} | ({} if index is None else {0xA005: {1: index.decode(), 2: b"0100"}})
    return exif.tobytes()


@pytest.mark.parametrize(
    ("kind", "index", "space"),
    [(k, b"R03", 0xFFFF) for k in ("JPEG", "WEBP", "PNG")] + [(k, None, 2) for k in ("JPEG", "WEBP", "PNG", "TIFF")],
)
def test_adobe_rgb_by_exif(photo: np.ndarray, kind: str, index: bytes | None, space: int) -> None:
    stored = stored_as(photo, ADOBE, power(256 / 563))
    buffer = io.BytesIO()
    options = {"JPEG": {"quality": 98, "subsampling": 0}, "WEBP": {"lossless": True}}.get(kind, {})
    Image.fromarray(stored).save(buffer, kind, exif=interop(index, space), **options)
    assert error(buffer.getvalue(), stored) > 1.5
    assert error(buffer.getvalue(), photo) < (1.2 if kind == "JPEG" else 0.6)


@pytest.mark.parametrize(
    ("index", "space", "said"), [(b"R98", 1, ""), (b"R98", 0xFFFF, ""), (None, 0xFFFF, "not which")]
)
def test_other_colour_spaces_of_exif_leave_the_pixels(
    photo: np.ndarray, index: bytes | None, space: int, said: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    buffer = io.BytesIO()
    Image.fromarray(photo).save(buffer, "PNG", exif=interop(index, space))
    assert error(buffer.getvalue(), photo) == 0
    assert said in caplog.text if said else not caplog.records


def p3_profile() -> bytes:
    from flowmo.image_utils.colour_spaces import DISPLAY_P3, SRGB_CURVE, profile

    return profile(DISPLAY_P3, SRGB_CURVE)


def jp2(pixels: np.ndarray, colr: bytes) -> bytes:
    """A lossless JP2 whose colour specification is replaced."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG2000", irreversible=False, no_jp2=False)
    data = buffer.getvalue()
    header, old = data.index(b"jp2h"), data.index(b"colr")
    size = int.from_bytes(data[old - 4 : old])
    box = struct.pack(">I", 8 + len(colr)) + b"colr" + colr
    whole = int.from_bytes(data[header - 4 : header]) - size + len(box)
    return data[: header - 4] + struct.pack(">I", whole) + data[header : old - 4] + box + data[old - 4 + size :]


def test_colours_of_jpeg_2000(photo: np.ndarray, caplog: pytest.LogCaptureFixture) -> None:
    stored = stored_as(photo, P3, srgb_curve)
    for method in (2, 3):
        assert error(jp2(stored, bytes([method, 0, 0]) + p3_profile()), photo) < 0.6
    assert error(jp2(photo, b"\1\0\0" + struct.pack(">I", 16)), photo) == 0
    assert not caplog.records
    assert error(jp2(photo, b"\1\0\0" + struct.pack(">I", 21)), photo, "my.jp2") == 0  # ROMM
    assert "my.jp2" in caplog.text


def test_code_points_of_avif(photo: np.ndarray, caplog: pytest.LogCaptureFixture) -> None:
    stored = stored_as(photo, P3, srgb_curve)
    buffer = io.BytesIO()
    Image.fromarray(stored).save(buffer, "AVIF", quality=98, subsampling="4:4:4")
    data = buffer.getvalue()
    place = data.index(b"colrnclx") + 8
    assert data[place : place + 4] == bytes([0, 1, 0, 13])
    plain = error(data, stored)
    assert error(data[:place] + bytes([0, 12, 0, 13]) + data[place + 4 :], photo) < plain + 0.6
    assert not caplog.records
    assert error(data[:place] + bytes([0, 9, 0, 16]) + data[place + 4 :], stored, "my.avif") < plain + 0.1
    assert "my.avif" in caplog.text


def test_primaries_of_tiff(photo: np.ndarray) -> None:
    from PIL import TiffImagePlugin

    tags = TiffImagePlugin.ImageFileDirectory_v2()
    tags[318] = (0.3127, 0.3290)
    tags[319] = tuple(v for pair in P3 for v in pair)
    tags.tagtype[318] = tags.tagtype[319] = 5  # type: ignore[attr-defined]
    buffer = io.BytesIO()
    Image.fromarray(stored_as(photo, P3, srgb_curve)).save(buffer, "TIFF", tiffinfo=tags)
    assert error(buffer.getvalue(), photo) < 0.6


def test_a_profile_in_a_bmp(photo: np.ndarray) -> None:
    rows = stored_as(photo, P3, srgb_curve)[::-1, :, ::-1].tobytes()
    height, width = photo.shape[:2]
    assert width * 3 % 4 == 0
    profile = p3_profile()
    begin = 14 + 124
    header = b"BM" + struct.pack("<IHHI", begin + len(rows) + len(profile), 0, 0, begin)
    header += struct.pack("<IiiHHIIiiII", 124, width, height, 1, 24, 0, len(rows), 2835, 2835, 0, 0)
    header += bytes(16) + b"DEBM" + bytes(36 + 12) + struct.pack("<IIII", 4, 124 + len(rows), len(profile), 0)
    assert len(header) == begin
    assert error(header + rows + profile, photo) < 0.6


def test_endless_chunks_and_boxes_are_not_followed(photo: np.ndarray) -> None:
    small = photo[:8, :8]
    many = png(small, *[(b"abCd", b"")] * 5000, (b"cICP", bytes([9, 16, 0, 1])))
    assert error(many, small) == 0
