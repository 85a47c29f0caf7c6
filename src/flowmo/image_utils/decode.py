"""Any picture file a user may have -> 8-bit RGB, upright, or an ImageError that says why not."""

from __future__ import annotations

import errno
import importlib
import io
import os
from pathlib import Path
from typing import BinaryIO

from PIL import Image

from ..errors import ImageError
from .limits import MAX_PIXELS, check_parts, check_size
from .modes import Storage, to_srgb
from .png_text import without_chunks
from .regular import NotRegularError, check_regular

IMAGE_SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".apng", ".webp", ".avif", ".gif", ".tif", ".tiff", ".bmp", ".jp2"}
    | {".ppm", ".pgm", ".pbm", ".pnm"}
)
MAX_ENCODED_BYTES = 2**29
"""Of an image as it is stored in a tar or a Parquet file."""

# Only formats that Pillow decodes itself. Others hand the file to a program (EPS to Ghostscript) or render it.
# They are registered here, because Pillow otherwise knows only some of them until it fails on a file; to register all
# that there are takes a command a fifth of a second.
for _name in ("Avif", "Bmp", "Gif", "Jpeg", "Jpeg2K", "Mpo", "Png", "Ppm", "Tiff", "WebP"):
    importlib.import_module(f"PIL.{_name}ImagePlugin")
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
    """Return the picture in a file, or in the bytes of one, as RGB in sRGB.

    Its content decides the format, not its suffix; of an animation the first frame is taken. EXIF orientation and
    colour profile are applied, transparency is laid on white, deeper than 8 bits is scaled (docs/DATA.md has a table).
    Raises ImageError naming ``name``, also for what is no regular file and for what would take more than a gigabyte.
    """
    try:
        if not isinstance(file, bytes):
            check_regular(file)
        with io.BytesIO(file) if isinstance(file, bytes) else open(file, "rb") as raw:
            check_parts(raw)
        try:
            return _upright(io.BytesIO(file) if isinstance(file, bytes) else file, name)
        except (OSError, SyntaxError, ValueError, IndexError) as error:
            failed = error.with_traceback(None)  # which would keep its pixels in memory
        with io.BytesIO(file) if isinstance(file, bytes) else open(file, "rb") as raw:
            rest = without_chunks(raw, name)
            if rest is None:
                raise failed
            return _upright(rest, name)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ImageError(
            f"{name}: too large ({error}; at most {MAX_PIXELS // 10**6} megapixels): scale it down first"
        ) from None
    except FileNotFoundError:
        raise ImageError(f"{name}: there is no such file") from None
    except IsADirectoryError:
        raise ImageError(f"{name}: {_about_folder(file)}") from None
    except PermissionError:
        raise ImageError(f"{name}: may not be read; check its permissions") from None
    except Image.UnidentifiedImageError:
        raise ImageError(f"{name}: {_about_content(file)}") from None
    except NotRegularError as error:
        raise ImageError(f"{name}: {error}") from None
    except OSError as error:
        if isinstance(file, bytes) or error.errno not in (errno.ENAMETOOLONG, errno.ELOOP):
            raise ImageError(f"{name}: damaged or of an unknown kind ({error})") from None
        raise ImageError(f"{name}: cannot be opened ({error.strerror})") from None
    except MemoryError:
        raise ImageError(f"{name}: takes more memory than there is: scale it down first") from None
    except Exception as error:  # Pillow's decoders raise nearly every type there is on damaged files.
        raise ImageError(f"{name}: damaged or of an unknown kind ({error or type(error).__name__})") from None


def _upright(file: Path | BinaryIO, name: str) -> Image.Image:
    with Image.open(file, formats=_FORMATS) as image:
        check_size(image)
        storage = Storage.of(image)
        image.load()
        orientation = _orientation(image)
        rgb = to_srgb(image, storage, name)
    del image  # its pixels are not needed any more when the result is turned
    return rgb.transpose(_UPRIGHT[orientation]) if orientation in _UPRIGHT else rgb


def _about_folder(folder: Path | bytes) -> str:
    try:
        os.listdir(folder)
    except OSError as error:
        return f"is a folder that cannot be searched ({error.strerror})"
    return "is a folder, not a picture"


def _about_content(file: Path | bytes) -> str:
    """Return what a file is that Pillow does not know, by its first bytes and its suffix."""
    first = file[:4] if isinstance(file, bytes) else _first_bytes(file)
    if first in (b"II*\0", b"MM\0*"):
        return (
            "a TIFF of numbers or a compression that cannot be read; convert it to integers of 8 or 16 bits, or to "
            "floats of 32"
        )
    suffix = "" if isinstance(file, bytes) else file.suffix.lower()
    if suffix in (".tar", ".parquet", ".npy") or first == b"PAR1":
        return (
            "a data set, not a picture; flowmo tokenize DATA --shard FILE.shard codes all of it, and flowmo evaluate "
            "measures on it"
        )
    return "not a picture that can be read; give JPEG, PNG, WebP, AVIF, GIF or TIFF"


def _first_bytes(path: Path) -> bytes:
    with open(path, "rb") as raw:
        return raw.read(4)


def to_rgb(image: Image.Image) -> Image.Image:
    """Return a Pillow image of any mode as RGB: transparency is laid on white, deeper than 8 bits is scaled.

    Raises ImageError.
    """
    try:
        storage = Storage.of(image)  # says nothing any more once it is loaded
        image.load()
        return to_srgb(image, storage, "the picture")
    except (OSError, ValueError) as error:
        raise ImageError(f"a picture of the mode {image.mode} cannot be read: {error}") from None


def _orientation(image: Image.Image) -> int:
    try:
        return int(image.getexif().get(_ORIENTATION, 1))
    except Exception:  # A picture with unreadable EXIF is still a picture.
        return 1
