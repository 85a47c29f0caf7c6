"""What an image would take to be decoded, told from its header: refused before that where it is too much or endless."""

from __future__ import annotations

import re
import struct
from typing import BinaryIO

from PIL import Image

MAX_PIXELS = 128_000_000
MAX_BYTES = 2**30
"""Of larger images, and of those that would take more memory while they are decoded, each is refused before that."""

# Bytes a pixel that a format's decoder needs beside the decoded image, at most, from their sources' buffers.
_DECODER_BYTES = {"WEBP": 12, "AVIF": 12, "JPEG2000": 12, "TIFF": 6, "GIF": 4}
_ALL_SCANS_BYTES = 6  # of JPEG in several scans: all coefficients are kept until the last one
_MOST_SCANS = 64  # of JPEG; encoders write up to twenty, and each goes over the whole image
_MOST_TILES = 100_000  # of TIFF, strips too
_SMALL_TILE = 2**24  # pixels that a tile of TIFF may have, however small the image is
_MARKER = re.compile(rb"\xff[\x01-\xcf\xd8-\xfe]")  # neither a byte of the image nor the beginning of a next part
_LISTS, _MOST_TAGS = (273, 279, 324, 325), 2**16  # places and sizes of strips and tiles; tags of a directory
_TILE_WIDTH, _TILE_HEIGHT, _DEPTH = 322, 323, 32997


def check_parts(file: BinaryIO) -> None:
    """Raise DecompressionBombError for a TIFF of far more strips or tiles than any image needs.

    It does so before anything lists them. The file, of any format, is at its beginning before and afterwards.
    """
    begin = file.read(16)
    file.seek(0)
    order = {b"II": "<", b"MM": ">"}.get(begin[:2])
    if order is None or len(begin) < 16:
        return
    large = begin[2:4] in (b"+\0", b"\0+")  # BigTIFF
    place = struct.unpack(order + ("Q" if large else "I"), begin[8:] if large else begin[4:8])[0]
    entry, counted = (20, 8) if large else (12, 2)
    try:
        file.seek(place)
        number = int.from_bytes(file.read(counted), "little" if order == "<" else "big")
        entries = file.read(entry * min(number, _MOST_TAGS))
    except (OSError, OverflowError, ValueError):  # a place that no file has
        return
    finally:
        file.seek(0)
    for tag, _, count in struct.iter_unpack(
        order + ("HHQ8x" if large else "HHI4x"), entries[: len(entries) // entry * entry]
    ):
        if tag in _LISTS and count > _MOST_TILES:
            raise Image.DecompressionBombError(f"{count:,} strips or tiles")


def check_size(image: Image.Image) -> None:
    """Raise DecompressionBombError for an image that takes too much memory or work until it is RGB.

    That is more than ``MAX_BYTES``, or more work than its pixels are worth. The image was opened, but not loaded.
    """
    pixels = image.width * image.height
    if pixels > MAX_PIXELS:
        raise Image.DecompressionBombError(f"{image.width}x{image.height} pixels")
    stored = 1 if image.mode in ("1", "L", "P") else 2 if image.mode.startswith("I;16") else 4
    decoder = _DECODER_BYTES.get(image.format or "", 0)
    if image.info.get("progressive") or image.info.get("progression"):
        decoder = _ALL_SCANS_BYTES
    if image.format == "TIFF":
        _check_tiles(image, pixels)
    elif image.format in ("JPEG", "MPO") and (scans := _scans(image)) > 1:
        decoder = _ALL_SCANS_BYTES
        if scans > _MOST_SCANS:
            raise Image.DecompressionBombError(f"a JPEG of more than {_MOST_SCANS} scans")
    # decoded beside the decoder's buffers; then beside the RGB; then, if it must be turned, RGB twice
    needed = pixels * max(stored + decoder, stored + 4, 8)
    if needed > MAX_BYTES:
        raise Image.DecompressionBombError(
            f"{image.width}x{image.height} pixels of {image.format} need {needed / 10**9:.1f} GB"
        )


def _check_tiles(image: Image.Image, pixels: int) -> None:
    tags = image.tag_v2  # type: ignore[attr-defined]
    tile = _number(tags.get(_TILE_WIDTH)) * _number(tags.get(_TILE_HEIGHT)) * max(1, _number(tags.get(_DEPTH, 1)))
    if tile > max(_SMALL_TILE, 2 * pixels):
        raise Image.DecompressionBombError(f"a tile of {tile:,} pixels for an image of {pixels:,}")
    if len(image.tile) > _MOST_TILES:  # type: ignore[attr-defined]
        raise Image.DecompressionBombError(f"{len(image.tile):,} strips or tiles")  # type: ignore[attr-defined]


def _number(value: object) -> int:
    return value if isinstance(value, int) else 0


def _scans(image: Image.Image) -> int:
    """Return how often a decoder goes over a JPEG, up to one more than ``_MOST_SCANS``.

    Where the first scan is the only one, the rest of the file is not read.
    """
    file = image.fp  # type: ignore[attr-defined]
    place = file.tell()
    try:
        file.seek(0)
        data = file.read(2**16)
        whole = image.info.get("progressive") or image.info.get("progression")
        scans, position = 0, 2
        while scans <= _MOST_SCANS:
            match = _MARKER.search(data, position)
            position = match.end() + int.from_bytes(data[match.end() : match.end() + 2]) if match else len(data)
            if position >= len(data):  # it goes on behind what was read
                rest = file.read()
                if not rest:
                    break
                data += rest
                position = match.start() if match else max(0, position - 1)
                continue
            assert match is not None
            kind = data[match.end() - 1]
            if kind == 0xD9:
                break
            if kind == 0xDA:
                scans += 1
                if not whole and data[match.end() + 2] == image.layers:  # type: ignore[attr-defined]
                    break
        return max(1, scans)
    finally:
        file.seek(place)
