"""Pixels of every mode that Pillow reads -> 8-bit sRGB; the table in docs/DATA.md says what becomes of each."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from PIL import Image

from .colour_tags import SRGB, Colours, colours_of
from .notes import note
from .profiles import lab_transform, srgb_transform

_BAND_PIXELS = 2**20
_WHITE_IS_ZERO, _BITS, _PHOTOMETRIC, _SIGNED, _SAMPLE_FORMAT = 0, 258, 262, 2, 339  # of TIFF
_PLANES, _APART, _COLOUR_MAP, _DEPTH = 284, 2, 320, 32997
_OVERSHOOT = 0.05
_FEW = 0.001


@dataclass(frozen=True)
class Storage:
    """How a file stores what Pillow is about to decode, as told before it does."""

    raw: str = ""  # Pillow's name of the stored layout
    bits: int = 0  # of a sample, 0 where unknown
    inverted: bool = False  # whether white is zero, and Pillow leaves that as it is
    signed: bool = False  # whether integers have a sign
    # That of a TIFF whose colours have eight bits where they should have sixteen, all reds first, then all greens and
    # blues.
    palette: bytes = b""
    colours: Colours = SRGB  # what it says of the colour space

    @classmethod
    def of(cls, image: Image.Image) -> Storage:
        """Return that of an image that was opened, but not loaded. Raises ValueError for one that Pillow misreads."""
        colours = colours_of(image)
        tile = getattr(image, "tile", None) or [None]
        arguments = tile[0][3] if tile[0] is not None else ""
        raw = arguments if isinstance(arguments, str) else arguments[0] if arguments else ""
        tags = getattr(image, "tag_v2", None)
        if image.format != "TIFF" or tags is None:
            return cls(str(raw), colours=colours)
        deep = image.mode.startswith("I") or image.mode == "F"
        bits, kind = tags.get(_BITS, 0), tags.get(_SAMPLE_FORMAT, 1)
        samples = len(bits) if isinstance(bits, tuple) else 1
        bits, kind = (value[0] if isinstance(value, tuple) and value else value for value in (bits, kind))
        if samples > 1 and bits != 8 and tags.get(_PLANES) == _APART:
            raise ValueError(f"its channels of {bits} bits lie apart; save it with interleaved channels")
        if kind == _SIGNED and bits == 8:
            raise ValueError("bytes with a sign; save it as bytes without")
        if tags.get(_DEPTH, 1) != 1:
            raise ValueError("an image of three dimensions; save its planes as pages")
        entries = tags.get(_COLOUR_MAP, ()) if image.mode == "P" else ()
        small = bytes(entries) if 0 < max(entries, default=0) < 256 else b""
        inverted = deep and tags.get(_PHOTOMETRIC) == _WHITE_IS_ZERO
        return cls(str(raw), int(bits or 0), inverted, kind == _SIGNED, small, colours)


def to_srgb(image: Image.Image, storage: Storage, name: str) -> Image.Image:
    """Return a loaded image as 8-bit RGB in sRGB, transparency laid on white.

    It is converted in bands of rows, so that nothing but the result takes memory beside it.

    Raises ValueError for values that are not an image's. What had to be guessed or left out is noted about ``name``.
    """
    if storage.palette:
        image.putpalette(np.frombuffer(storage.palette, np.uint8).reshape(3, -1).T.tobytes())
    deep = image.mode.startswith("I") or image.mode == "F"
    scale = _Scale.of(image, storage, name) if deep else None
    mode = "L" if deep or image.mode in ("1", "L", "LA", "La") else image.mode
    mode = mode if mode in ("L", "CMYK", "LAB") and not storage.colours.numbers else "RGB"
    if storage.colours.remark:
        note(name, storage.colours.remark)
    transform = srgb_transform(storage.colours.profile, mode, name)
    if transform is None and mode == "LAB":
        transform = lab_transform()
    clear = None if deep else _transparency(image, storage)
    result = Image.new("RGB", image.size)
    for top, band in _bands(image):
        alpha = None
        if scale is not None:
            values = np.asarray(band)
            colours = Image.fromarray(scale.to_uint8(values)).convert(mode)
            if isinstance(key := image.info.get("transparency"), int):
                alpha = Image.fromarray(np.where(values == key, 0, 255).astype(np.uint8))
        else:
            if clear is not None:
                band.info["transparency"] = clear
            if band.mode in ("LA", "La", "PA", "RGBA", "RGBa") or "transparency" in band.info:
                band = band.convert("RGBA")
                alpha = band.getchannel("A")
            colours = band.convert(mode)
        colours = (transform.apply(colours) if transform is not None else colours).convert("RGB")
        if alpha is not None:
            # as Image.alpha_composite does, which alone rounds a half as every earlier version did
            colours.putalpha(alpha)
            colours = Image.alpha_composite(Image.new("RGBA", colours.size, "white"), colours).convert("RGB")
        result.paste(colours, (0, top))
    return result


@dataclass(frozen=True)
class _Scale:
    """A way to take the values of a deep image to 0 ... 255; those of a float image beyond by rounding are clipped."""

    limit: float  # the value that becomes 255
    inverted: bool  # whether white is zero

    def to_uint8(self, values: np.ndarray) -> np.ndarray:
        grey = values.astype(np.float64) * (255.0 / self.limit)
        return (255 - grey if self.inverted else grey).round().clip(0, 255).astype(np.uint8)

    @classmethod
    def of(cls, image: Image.Image, storage: Storage, name: str) -> _Scale:
        low, high, many, count = np.inf, -np.inf, 0, 0
        for _, band in _bands(image):
            values = np.asarray(band)
            if not np.isfinite(values).all():
                raise ValueError("values that are no numbers; save it with 8 or 16 bits")
            low, high = min(low, float(values.min())), max(high, float(values.max()))
            many, count = many + int((values > 8).sum()), count + values.size
        if image.mode != "F":
            limit = 4095.0 if storage.bits == 12 else 32767.0 if storage.signed and storage.bits == 16 else 65535.0
            if not 0 <= low <= high <= limit:
                raise ValueError(f"values from {low:g} to {high:g} are not an image's; save it with 8 or 16 bits")
            if limit == 65535 and 0 < high < 4096:
                bits = max(8, int(high).bit_length())
                note(
                    name, f"is nearly black (its largest value is {high:g} of 65535): if it holds {bits} bits, scale it"
                )
            return cls(limit, storage.inverted)
        limit = 1.0 if high <= 1 + _OVERSHOOT else 255.0
        if limit == 255 and many < _FEW * count:
            raise ValueError(
                f"values from {low:g} to {high:g} are neither in [0, 1] nor in [0, 255]; save it with 8 or 16 bits"
            )
        if not -_OVERSHOOT * limit <= low <= high <= (1 + _OVERSHOOT) * limit:
            raise ValueError(f"values from {low:g} to {high:g} are not an image's; save it with 8 or 16 bits")
        return cls(limit, storage.inverted)


def _transparency(image: Image.Image, storage: Storage) -> int | tuple[int, ...] | None:
    """Return the colour that is transparent, in the 8 bits of the pixels.

    It is None but where PNG gives it in the depth of the file.
    """
    key = image.info.get("transparency")
    if isinstance(key, int) and image.mode == "L":
        return key * {"L;2": 85, "L;4": 17}.get(storage.raw, 1)
    if isinstance(key, tuple) and image.mode == "RGB" and storage.raw.startswith("RGB;16"):
        return tuple(value >> 8 for value in key)
    return None


def _bands(image: Image.Image) -> Iterator[tuple[int, Image.Image]]:
    rows = max(1, _BAND_PIXELS // max(1, image.width))
    for top in range(0, image.height, rows):
        yield top, image.crop((0, top, image.width, min(top + rows, image.height)))
