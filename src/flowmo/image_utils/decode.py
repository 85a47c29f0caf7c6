"""Any picture file a user may have -> 8-bit RGB, upright, or an ImageError that says why not."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from PIL import Image

from ..errors import ImageError

IMAGE_SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".apng", ".webp", ".avif", ".gif", ".tif", ".tiff", ".bmp", ".jp2"}
    | {".ppm", ".pgm", ".pbm", ".pnm"}
)
MAX_PIXELS = 128_000_000
"""Larger pictures are refused: decoded they would take more than half a gigabyte."""

# Only formats that Pillow decodes itself. Others hand the file to a program (EPS to Ghostscript) or render it.
# All are registered here, once, because Pillow otherwise knows only some of them until it fails on a file.
Image.init()
_FORMATS = tuple(
    f for f in ("JPEG", "MPO", "PNG", "WEBP", "AVIF", "GIF", "TIFF", "BMP", "PPM", "JPEG2000") if f in Image.OPEN
)
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_ORIENTATION = 0x0112


def decode(file: Path | bytes, name: str) -> Image.Image:
    """The picture in a file, or in the bytes of one, as RGB.

    Its content decides the format, not its suffix; of an animation the first frame is taken. EXIF orientation is
    applied, transparency is laid on white, deeper than 8 bits is scaled. Raises ImageError naming ``name``.
    """
    try:
        with Image.open(io.BytesIO(file) if isinstance(file, bytes) else file, formats=_FORMATS) as image:
            if image.width * image.height > MAX_PIXELS:
                raise Image.DecompressionBombError(f"{image.width}x{image.height} pixels")
            image.load()
            orientation = _orientation(image)
            rgb = _to_rgb(image)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ImageError(
            f"{name}: too large ({error}; at most {MAX_PIXELS // 10**6} megapixels): scale it down first"
        ) from None
    except FileNotFoundError:
        raise ImageError(f"{name}: there is no such file") from None
    except IsADirectoryError:
        raise ImageError(f"{name}: is a folder, not a picture") from None
    except PermissionError:
        raise ImageError(f"{name}: may not be read; check its permissions") from None
    except Image.UnidentifiedImageError:
        raise ImageError(f"{name}: not a picture that can be read; give JPEG, PNG, WebP, AVIF, GIF or TIFF") from None
    except Exception as error:  # Pillow's decoders raise nearly every type there is on damaged files.
        raise ImageError(f"{name}: damaged or of an unknown kind ({error or type(error).__name__})") from None
    return rgb.transpose(_UPRIGHT[orientation]) if orientation in _UPRIGHT else rgb


def to_rgb(image: Image.Image) -> Image.Image:
    """A Pillow image of any mode as RGB: transparency is laid on white, deeper than 8 bits is scaled.

    Raises ImageError.
    """
    try:
        return _to_rgb(image)
    except (OSError, ValueError) as error:
        raise ImageError(f"a picture of the mode {image.mode} cannot be read: {error}") from None


def _orientation(image: Image.Image) -> int:
    try:
        return int(image.getexif().get(_ORIENTATION, 1))
    except Exception:  # A picture with unreadable EXIF is still a picture.
        return 1


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I") or image.mode == "F":
        return _to_8_bit(image).convert("RGB")
    if image.mode in ("LA", "PA", "RGBA", "RGBa") or "transparency" in image.info:
        rgba = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert("RGB")
    return image.convert("RGB")


def _to_8_bit(image: Image.Image) -> Image.Image:
    """Grey of 16 bits (also as Pillow's 32-bit mode), or floats in [0, 1] or [0, 255]; Pillow would clip them."""
    values = np.asarray(image).astype(np.float64)
    low, high = values.min(), values.max()
    limit = 65535.0 if image.mode != "F" else 1.0 if high <= 1 else 255.0
    if not 0 <= low <= high <= limit:
        raise ValueError(f"values from {low:g} to {high:g} are not a picture's; save it with 8 or 16 bits")
    return Image.fromarray((values * (255.0 / limit)).round().astype(np.uint8))
