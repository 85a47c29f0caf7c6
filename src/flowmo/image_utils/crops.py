"""Square pictures for the network and back: scaling and crops of the paper's training (C1)."""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image

from ..errors import ImageError
from .decode import MAX_PIXELS
from .scale import to_float, to_uint8


def covering_size(size: tuple[int, int], target: tuple[int, int]) -> tuple[int, int]:
    """Return the sides of an image scaled until it covers ``target``: one side is met, the other rounded down (C1)."""
    if size[0] * target[1] <= size[1] * target[0]:
        return target[0], target[0] * size[1] // size[0]
    return target[1] * size[0] // size[1], target[1]


def center_corner(size: tuple[int, int], target: tuple[int, int]) -> tuple[int, int]:
    """Return where the middle ``target`` of an image begins.

    It is rounded as Python rounds, as in the published crop: half a pixel goes to the even side.
    """
    return round((size[0] - target[0]) / 2), round((size[1] - target[1]) / 2)


def shorter_side_to(image: Image.Image, size: int) -> Image.Image:
    """Scale so that the shorter side is ``size`` pixels, with PIL's bilinear filter as published (C1).

    The longer side is rounded down. A picture whose shorter side is ``size`` already comes back untouched. Raises
    ImageError for a strip so narrow that it would grow beyond what memory holds.
    """
    scaled = covering_size(image.size, (size, size))
    if scaled == image.size:
        return image
    if scaled[0] * scaled[1] > MAX_PIXELS:
        raise ImageError(f"a picture of {image.width}x{image.height} is too narrow to be scaled to a side of {size}")
    return image.resize(scaled, Image.Resampling.BILINEAR)


def center_crop(image: Image.Image, size: int) -> Image.Image:
    """Return the middle ``size`` x ``size`` pixels. Raises ImageError when the picture is smaller."""
    _check(image, size)
    return _cut(image, *center_corner(image.size, (size, size)), size)


def adm_crop(image: Image.Image, size: int) -> Image.Image:
    """Return the middle ``size`` x ``size`` pixels of a picture reduced as ADM's reference batches are (E8).

    Halved with a box filter while the shorter side is at least twice ``size``, then scaled to it with PIL's bicubic
    filter; odd rests of the crop go to the right and below. Raises ImageError for a strip too narrow for memory.
    """
    while min(image.size) >= 2 * size:
        image = image.resize((image.width // 2, image.height // 2), Image.Resampling.BOX)
    scale = size / min(image.size)
    width, height = round(image.width * scale), round(image.height * scale)
    if width * height > MAX_PIXELS:
        raise ImageError(f"a picture of {image.width}x{image.height} is too narrow to be scaled to a side of {size}")
    image = image.resize((width, height), Image.Resampling.BICUBIC)
    return _cut(image, (width - size) // 2, (height - size) // 2, size)


def random_crop(image: Image.Image, size: int, generator: np.random.Generator) -> Image.Image:
    """Return ``size`` x ``size`` pixels from anywhere in the picture. Raises ImageError when the picture is smaller."""
    _check(image, size)
    left = int(generator.integers(0, image.width - size + 1))
    top = int(generator.integers(0, image.height - size + 1))
    return _cut(image, left, top, size)


def to_tensor(image: Image.Image) -> torch.Tensor:
    """Return an RGB picture as float32 3 H W in [-1, 1]."""
    return to_float(to_pixels(image.convert("RGB")).contiguous())


def to_pixels(image: Image.Image) -> torch.Tensor:
    """Return an RGB picture as uint8 3 H W, a copy of its pixels in their own order."""
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)


def to_image(image: torch.Tensor) -> Image.Image:
    """Return float 3 H W in [-1, 1] as an RGB picture; the inverse of :func:`to_tensor`."""
    if image.ndim != 3 or image.shape[0] != 3:
        raise ImageError(f"a picture is a tensor of shape 3 H W, got {tuple(image.shape)}")
    return Image.fromarray(to_uint8(image.detach()).permute(1, 2, 0).contiguous().cpu().numpy())


def _check(image: Image.Image, size: int) -> None:
    if min(image.size) < size:
        raise ImageError(f"a picture of {image.width}x{image.height} is too small for a crop of {size}: scale it first")


def _cut(image: Image.Image, left: int, top: int, size: int) -> Image.Image:
    return image if image.size == (size, size) else image.crop((left, top, left + size, top + size))
