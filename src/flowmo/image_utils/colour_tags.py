"""What an image's file says of its colours: its ICC profile, or the profile of its numbers (docs/DATA.md)."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Any

from PIL import ExifTags, Image

from .colour_spaces import ADOBE_GAMMA, ADOBE_RGB, SRGB_CURVE, SRGB_POINTS, coded_profile, profile

_MOST_PARTS = 4096  # chunks or boxes that are searched
_MOST_BYTES = 2**22  # of a box that is read
_SRGB_GAMMA, _SAME_GAMMA = 1 / 2.2, 0.05  # of PNG; so near it has always meant sRGB's curve
_UNCALIBRATED, _ADOBE = 0xFFFF, 2  # of EXIF's ColorSpace
_INDEX = 1  # of EXIF's interoperability
_RGB = ("RGB", "RGBA", "RGBX", "P")
_WHITE, _PRIMARIES = 318, 319  # of TIFF
_PLAIN_JP2 = (0, 12, 15, 16, 17, 18)  # black and white, CMYK, sRGB, grey and its YCC, which Pillow decodes


@dataclass(frozen=True)
class Colours:
    """What a file says of its colours."""

    profile: bytes = b""  # ICC; empty for sRGB
    remark: str = ""  # what is to be said where it could not be told plainly
    numbers: bool = False  # whether the profile was made here of numbers; it is of RGB, for grey too


SRGB = Colours()


def colours_of(image: Image.Image) -> Colours:
    """Return what the file of an image says of its colours; the image was opened, but not loaded.

    PNG's cICP is asked before its profile, everything else after it. Numbers that are no colour space are left out with
    a remark.
    """
    given = image.info.get("icc_profile")
    embedded = Colours(given if isinstance(given, bytes) else b"")
    try:
        if image.format == "PNG":
            return _of_png(image, embedded)
        return embedded if embedded.profile else _BY_FORMAT.get(image.format or "", _of_exif)(image)
    except (ValueError, ArithmeticError) as error:
        return Colours(embedded.profile, f"its colours are not sRGB ({error}), but were read as that")
    except Exception:  # a damaged part that only describes: the image is read
        return embedded


def _numbers(found: bytes) -> Colours:
    return Colours(found, numbers=True)


def _of_png(image: Image.Image, embedded: Colours) -> Colours:
    grey, info = image.mode in ("1", "L", "LA", "I;16", "I"), image.info
    if found := _png_chunk(image, b"cICP"):
        primaries, transfer, matrix, full = found[:4]
        try:
            if matrix != 0 or full != 1:
                raise ValueError(f"matrix {matrix}, range {full}")
            return _numbers(coded_profile(primaries, transfer, grey))
        except ValueError:
            if not embedded.profile:
                raise
    if embedded.profile or "srgb" in info:
        return embedded
    if "gamma" in info or "chromaticity" in info:
        gamma = info.get("gamma", _SRGB_GAMMA)
        curve = SRGB_CURVE if abs(gamma / _SRGB_GAMMA - 1) < _SAME_GAMMA else 1 / gamma
        return _numbers(profile(SRGB_POINTS if grey else tuple(info.get("chromaticity", SRGB_POINTS)), curve))
    return _of_exif(image)


def _of_exif(image: Image.Image) -> Colours:
    if image.format == "PNG" and "exif" not in image.info:
        return SRGB  # Pillow would decode the whole image to look behind it
    exif = image.getexif()
    details = exif.get_ifd(ExifTags.IFD.Exif)
    said = details.get(ExifTags.Base.ColorSpace)
    if said == _UNCALIBRATED:
        more = exif.get_ifd(ExifTags.IFD.Interop) if ExifTags.IFD.Interop in details else {}
        index = str(more.get(_INDEX, "")).rstrip("\0 ")
        if index != "R03":
            return SRGB if index == "R98" else Colours(remark="its colours are said to be other than sRGB, but "
                                                            "not which; they were read as sRGB")  # fmt: skip
    elif said != _ADOBE:
        return SRGB
    return _numbers(profile(ADOBE_RGB, ADOBE_GAMMA)) if image.mode in _RGB else SRGB


def _of_tiff(image: Image.Image) -> Colours:
    tags = image.tag_v2  # type: ignore[attr-defined]
    white, primaries = tags.get(_WHITE, SRGB_POINTS[:2]), tags.get(_PRIMARIES)
    if image.mode in _RGB and primaries is not None and len(white) == 2 and len(primaries) == 6:
        return _numbers(profile(tuple(map(float, (*white, *primaries))), SRGB_CURVE))
    return _of_exif(image)


def _of_avif(image: Image.Image) -> Colours:
    place = (meta := _box(image, b"meta")).find(b"colrnclx")
    if place < 0:
        return _of_exif(image)
    primaries, curve = struct.unpack(">HH", meta[place + 8 : place + 12])
    return _numbers(coded_profile(primaries, curve, image.mode == "L"))


def _of_jp2(image: Image.Image) -> Colours:
    header = _box(image, b"jp2h")
    place = header.find(b"colr")
    if place < 4:
        return SRGB
    size, method = int.from_bytes(header[place - 4 : place]), header[place + 4]
    if method in (2, 3):
        return Colours(header[place + 7 : place - 4 + size])
    space = int.from_bytes(header[place + 7 : place + 11])
    if space not in _PLAIN_JP2:
        raise ValueError(f"colour space {space} of JPEG 2000")
    return SRGB


def _of_bmp(image: Image.Image) -> Colours:
    header = _read(image, 0, 138)
    if len(header) < 138 or int.from_bytes(header[14:18], "little") < 124 or header[70:74] != b"DEBM":
        return SRGB
    place, size = struct.unpack("<II", header[126:134])
    return Colours(_read(image, 14 + place, min(size, _MOST_BYTES)))


_BY_FORMAT = {"TIFF": _of_tiff, "AVIF": _of_avif, "JPEG2000": _of_jp2, "BMP": _of_bmp}


def _read(image: Image.Image, place: int, size: int) -> bytes:
    """Return bytes of the image's file, which stays where it was read to; none where it is loaded already."""
    file: Any = getattr(image, "fp", None)
    if file is None:
        return b""
    before = file.tell()
    try:
        file.seek(place)
        return bytes(file.read(size))
    finally:
        file.seek(before)


def _png_chunk(image: Image.Image, name: bytes) -> bytes:
    """Return the content of a chunk of a PNG before its pixels, empty where there is none."""
    place = 8
    for _ in range(_MOST_PARTS):
        begin = _read(image, place, 8)
        size, kind = int.from_bytes(begin[:4]), begin[4:]
        if kind == name:
            return _read(image, place + 8, min(size, 64))
        if kind in (b"", b"IDAT", b"IEND"):
            break
        place += size + 12
    return b""


def _box(image: Image.Image, name: bytes) -> bytes:
    """Return the content of a box of AVIF or JPEG 2000, empty where there is none."""
    place = 0
    for _ in range(_MOST_PARTS):
        begin = _read(image, place, 16)
        size, kind, start = int.from_bytes(begin[:4]), begin[4:8], 8
        if size == 1:
            size, start = int.from_bytes(begin[8:]), 16
        if kind == name:
            return _read(image, place + start, min(size - start if size else _MOST_BYTES, _MOST_BYTES))
        if size < start:
            break
        place += size
    return b""
