"""Pictures of any shape for a model of one size, and the way back (the paper crops; Section 4)."""

from __future__ import annotations

from typing import Literal

import numpy as np
from PIL import Image

from ..errors import ConfigError, ImageError
from .crops import center_corner, covering_size
from .decode import MAX_PIXELS

Fit = Literal["crop", "pad", "stretch", "whole"]
FITS: tuple[Fit, ...] = ("crop", "pad", "stretch", "whole")


def fit_image(image: Image.Image, height: int, width: int, fit: Fit = "crop") -> Image.Image:
    """Return an RGB picture of any size at ``height`` x ``width``.

    crop: scaled until it covers the size, then the centre, like the paper (C1: PIL bilinear; a square size gives what
    ``center_crop(shorter_side_to(...))`` gives). pad: all of it, centred, its edges repeated outwards. stretch: all of
    it, proportions lost. whole: not scaled; its right and lower edges are repeated up to the size (:func:`whole_size`).
    """
    _check(fit, (height, width))
    if fit == "whole":
        return _extend(image, height, width)
    if image.size == (width, height):
        return image
    if fit == "stretch":
        return image.resize((width, height), Image.Resampling.LANCZOS)
    if fit == "pad":
        return _pad(image, height, width)
    return _cover(image, height, width)


def restore_size(image: Image.Image, original_size: tuple[int, int], fit: str) -> Image.Image:
    """Undo :func:`fit_image` in size and return the picture; ``original_size`` is (height, width).

    stretch and pad give a picture of the original size. crop gives the region that was kept, at the original scale:
    what was cut off is gone. Raises ImageError when the size cannot be that of a picture.
    """
    _check(fit, original_size)
    height, width = original_size
    if fit == "whole":
        return image.crop((0, 0, width, height))
    if fit == "pad":
        left, top, inner_width, inner_height = _padded_box(height, width, image.height, image.width)
        image = image.crop((left, top, left + inner_width, top + inner_height))
    elif fit == "crop":
        height, width = kept_size(original_size, image.height, image.width)
    return image if image.size == (width, height) else image.resize((width, height), Image.Resampling.LANCZOS)


def whole_size(original_size: tuple[int, int], multiple: int) -> tuple[int, int]:
    """Return the height and width of an image that is not scaled.

    Each goes up to the next ``multiple`` of the model's patch.
    """
    return -(-original_size[0] // multiple) * multiple, -(-original_size[1] // multiple) * multiple


def kept_size(original_size: tuple[int, int], height: int, width: int) -> tuple[int, int]:
    """Return (height, width) of the region, in original pixels, that ``crop`` to ``height`` x ``width`` keeps."""
    original_height, original_width = original_size
    if original_width * height <= original_height * width:
        return max(1, round(height * original_width / width)), original_width
    return original_height, max(1, round(width * original_height / height))


def _cover(image: Image.Image, height: int, width: int) -> Image.Image:
    scaled = covering_size(image.size, (width, height))
    left, top = center_corner(scaled, (width, height))
    if scaled[0] * scaled[1] > 64 * width * height:
        # A strip: the same pixels (but for rounding) without the memory for the whole of it, which can be gigabytes.
        x, y = image.width / scaled[0], image.height / scaled[1]
        region = (left * x, top * y, min((left + width) * x, image.width), min((top + height) * y, image.height))
        return image.resize((width, height), Image.Resampling.BILINEAR, box=region)
    if scaled != image.size:
        image = image.resize(scaled, Image.Resampling.BILINEAR)
    return image.crop((left, top, left + width, top + height))


def _pad(image: Image.Image, height: int, width: int) -> Image.Image:
    # Repeated edges, not grey: the model learned from photographs without frames, and what it invents beyond an edge is
    # cut off again. (To WebP, which draws flat areas for nothing, both cost the same for the same quality inside.)
    left, top, inner_width, inner_height = _padded_box(image.height, image.width, height, width)
    inner = np.asarray(image.resize((inner_width, inner_height), Image.Resampling.LANCZOS))
    below, right = height - top - inner_height, width - left - inner_width
    return Image.fromarray(np.pad(inner, ((top, below), (left, right), (0, 0)), mode="edge"))


def _extend(image: Image.Image, height: int, width: int) -> Image.Image:
    if image.height > height or image.width > width:
        raise ImageError(f"{image.height}x{image.width} pixels do not fit into {height}x{width} unscaled")
    beyond = ((0, height - image.height), (0, width - image.width), (0, 0))
    return image if image.size == (width, height) else Image.fromarray(np.pad(np.asarray(image), beyond, mode="edge"))


def _padded_box(original_height: int, original_width: int, height: int, width: int) -> tuple[int, int, int, int]:
    """Return left, top, width and height of the picture inside its padding."""
    scale = min(height / original_height, width / original_width)
    inner_width = min(width, max(1, round(original_width * scale)))
    inner_height = min(height, max(1, round(original_height * scale)))
    return (width - inner_width) // 2, (height - inner_height) // 2, inner_width, inner_height


def _check(fit: str, size: tuple[int, int]) -> None:
    if fit not in FITS:
        raise ConfigError(f"fit must be one of {', '.join(FITS)}; got {fit!r}")
    if min(size) < 1 or size[0] * size[1] > MAX_PIXELS:
        raise ImageError(f"{size[0]}x{size[1]} is not a picture's size (at most {MAX_PIXELS // 10**6} megapixels)")
