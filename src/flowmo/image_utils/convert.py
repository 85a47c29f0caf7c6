"""Paths, Pillow images, NumPy arrays and tensors, one or many, of any size -> a batch of one size, and back."""

from __future__ import annotations

import glob
import io
import os
import sys
import warnings
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import ImageError
from ..files import user_path
from .scale import stacked, to_float, to_uint8

ORIGINAL = "original"
"""A size: that of each image."""
Size: TypeAlias = int | tuple[int, int] | str
"""One side, (height, width), or ``ORIGINAL``."""
if TYPE_CHECKING:
    from PIL import Image

    Images: TypeAlias = (
        "str | os.PathLike[str] | Image.Image | np.ndarray | Tensor | Sequence[Images] | Iterator[Images]"
    )
else:
    Images = Any

TOLERANCE = 1e-3
_FORMS = (
    "give a path, a Pillow image, a NumPy array (H W 3 or N H W 3, uint8 or float), a tensor (3 H W or B 3 H W, uint8 "
    "or float), or a list of these; floats lie in [-1, 1]"
)
_warned = False


def as_images(images: Images, size: Size, patch: int = 1) -> Tensor:
    """Return images in any form as float B 3 H W in [-1, 1].

    A float tensor is taken as prepared and keeps its size. Everything else is brought to ``size`` (one side, or height
    and width): scaled until it covers it, then the centre, as the paper does (C1). "original" scales nothing, and
    repeats the right and lower edges up to a multiple of ``patch``. Files and uint8 are decoded as in
    :func:`flowmo.image_utils.decode.decode` and scaled by Pillow, floats by torch's antialiased bilinear filter.
    Accepted are a path, a Pillow image, a NumPy array (H W, H W C or N H W C with C of 1, 3 or 4, or channels first),
    a tensor with channels first, and sequences or iterators of these, whose
    sizes may differ.
    Raises ImageError for anything else, and for values outside [-1, 1]. Warns once of a batch that seems to be 0..1.
    """
    return _as_float(as_batch(images, size, patch))


def as_batch(images: Images, size: Size, patch: int = 1) -> Tensor:
    """Return what :func:`as_images` does, but as uint8 in [0, 255] where all have 8 bits: a fourth of the memory."""
    if isinstance(images, Tensor) and images.is_floating_point():
        batch = images[None] if images.ndim == 3 else images
        _check_tensor(batch, images)
    else:
        singles = [_fitted(single, size, patch) for single in _singles(images)]
        if any(single.is_floating_point() for single in singles):
            singles = [_as_float(single) for single in singles]
        shapes = sorted({tuple(single.shape[1:]) for single in singles})
        if len(shapes) > 1:
            raise ImageError(f"images of one size make a batch, these have {len(shapes)}: give them one at a time")
        if not singles:
            return torch.zeros(0, 3, *_sides(size, (0, 0), patch))
        batch = stacked(singles)
    if batch.is_floating_point():
        _check_range(batch)
    return batch


def _as_float(images: Tensor) -> Tensor:
    return images if images.is_floating_point() else to_float(images)


def _sides(size: Size, original: tuple[int, int], patch: int) -> tuple[int, int]:
    """Return (height, width) that an image of that original height and width gets."""
    from .fit import whole_size

    if size == ORIGINAL:
        return whole_size(original, patch)
    if isinstance(size, str):
        raise ImageError(f'size is one side, (height, width) or "original"; got {size!r}')
    return (size, size) if isinstance(size, int) else size


def to_pil(images: Tensor) -> list[Image.Image]:
    """Return images B 3 H W or 3 H W, float in [-1, 1] or uint8, as RGB Pillow images, one each.

    Raises ImageError for other shapes.
    """
    from PIL import Image

    return [Image.fromarray(array) for array in to_numpy(images)]


def to_numpy(images: Tensor) -> np.ndarray:
    """Return images B 3 H W or 3 H W, float in [-1, 1] or uint8, as uint8 B H W 3, floats rounded to nearest.

    Raises ImageError for other shapes.
    """
    if not isinstance(images, Tensor):
        raise ImageError(f"a tensor B 3 H W is needed, got an object of the type {type(images).__name__}")
    batch = images[None] if images.ndim == 3 else images
    eight_bits = batch.dtype == torch.uint8
    if batch.ndim != 4 or batch.shape[1] != 3 or not (eight_bits or batch.is_floating_point()):
        raise ImageError(
            f"images B 3 H W or 3 H W, float or uint8, are needed; got {images.dtype} {tuple(images.shape)}"
        )
    pixels = batch if eight_bits else to_uint8(batch.detach())
    return pixels.permute(0, 2, 3, 1).contiguous().cpu().numpy()


def _singles(images: Any) -> list[Any]:
    """Return the single images: paths, Pillow images, uint8 H W 3, or float 3 H W."""
    if isinstance(images, (str, os.PathLike)) or _is_pillow(images):
        return [images]
    if isinstance(images, Tensor):
        return _of_tensor(images)
    if isinstance(images, np.ndarray) and images.dtype != object:
        return _of_array(images)
    if isinstance(images, (Sequence, Iterator, np.ndarray)) and not isinstance(images, (bytes, io.IOBase)):
        return [single for item in images for single in _one(item)]
    raise ImageError(f"an object of the type {type(images).__name__} is no image; {_FORMS}")


def _one(item: Any) -> list[Any]:
    found = _singles(item)
    if len(found) != 1:
        raise ImageError(f"a list holds single images, but one of its items is {len(found)} images; {_FORMS}")
    return found


def _of_tensor(images: Tensor) -> list[Any]:
    batch = images[None] if images.ndim == 3 else images
    _check_tensor(batch, images)
    if batch.is_floating_point():
        return list(batch)
    if batch.dtype != torch.uint8:
        raise ImageError(f"images must be uint8 or floating point, got {batch.dtype}; use images.to(torch.uint8)")
    return list(batch.permute(0, 2, 3, 1).cpu().numpy())


def _check_tensor(batch: Tensor, images: Tensor) -> None:
    """Raise ImageError for images whose batch is not B 3 H W, with what would make it so."""
    if batch.ndim == 4 and batch.shape[1] == 3:
        return
    hint = _FORMS
    if batch.ndim == 4 and batch.shape[3] == 3:
        hint = f"permute({'2, 0, 1' if images.ndim == 3 else '0, 3, 1, 2'}) puts channels first"
    elif batch.ndim == 4 and batch.shape[1] == 1:
        hint = f"expand({'3' if images.ndim == 3 else '-1, 3'}, -1, -1) makes three channels of grey"
    raise ImageError(f"images must be B 3 H W or 3 H W, got a tensor of shape {tuple(images.shape)}; {hint}")


def _of_array(images: np.ndarray) -> list[Any]:
    array = images[..., None] if images.ndim == 2 else images
    if array.ndim == 3:
        array = array[None]
    if array.ndim != 4 or not (array.shape[3] in (1, 3, 4) or array.shape[1] == 3):
        raise ImageError(f"an array of shape {images.shape} is no image: expected H W 3 or N H W 3")
    if array.shape[3] not in (1, 3, 4):
        array = array.transpose(0, 2, 3, 1)
    if array.dtype == np.uint8:
        return list(array)
    if array.dtype.kind != "f":
        raise ImageError(
            f"an array of images must be uint8, or float in [-1, 1]; got {array.dtype}. Of values in 0..255, "
            "array.astype(numpy.uint8) makes one"
        )
    if array.shape[3] == 4:
        raise ImageError("float arrays with transparency are not read; give three channels, or uint8")
    pixels = torch.from_numpy(np.ascontiguousarray(array.transpose(0, 3, 1, 2), dtype=np.float32))
    return list(pixels.expand(-1, 3, -1, -1))


def _fitted(single: Any, size: Size, patch: int) -> Tensor:
    """Return a single image as 3 H W of its size: float in [-1, 1] where it came as floats, else uint8."""
    from PIL import Image

    from .crops import to_pixels
    from .decode import to_rgb
    from .fit import fit_image

    if isinstance(single, Tensor):
        if not single.numel():
            raise ImageError(f"an image of {single.shape[1]} x {single.shape[2]} pixels is empty")
        height, width = _sides(size, (single.shape[1], single.shape[2]), patch)
        return _extend_float(single, height, width) if size == ORIGINAL else _fit_float(single, height, width)
    if isinstance(single, (str, os.PathLike)):
        image = _read(os.fspath(single))
    elif isinstance(single, np.ndarray):
        image = to_rgb(Image.fromarray(np.ascontiguousarray(single[..., 0] if single.shape[2] == 1 else single)))
    else:
        image = to_rgb(single)
    if not image.width * image.height:
        raise ImageError(f"an image of {image.height} x {image.width} pixels is empty")
    height, width = _sides(size, (image.height, image.width), patch)
    image = fit_image(image, height, width, "whole" if size == ORIGINAL else "crop")
    return to_pixels(image)


def _read(name: str) -> Image.Image:
    """Decode a file that a user named. Raises ImageError, which says what to do with a folder, pattern or address."""
    from .decode import decode

    path = user_path(name)
    if "://" in name:
        raise ImageError(f"{name}: images are not fetched from an address; download it and give the file")
    if path.is_dir():
        raise ImageError(f'{name}: is a folder, not a picture; Path(folder).glob("*.jpg") lists its files')
    if glob.has_magic(name) and not path.exists():
        raise ImageError(f"{name}: there is no such file; glob.glob(pattern) lists those that match a pattern")
    return decode(path, name)


def _extend_float(image: Tensor, height: int, width: int) -> Tensor:
    beyond = (0, width - image.shape[2], 0, height - image.shape[1])
    return F.pad(image.float()[None], beyond, mode="replicate")[0]


def _fit_float(image: Tensor, height: int, width: int) -> Tensor:
    from .crops import center_corner, covering_size

    image = image.float()
    if image.shape[1:] == (height, width):
        return image
    scaled = covering_size((image.shape[1], image.shape[2]), (height, width))
    image = F.interpolate(image[None], scaled, mode="bilinear", antialias=True, align_corners=False)[0]
    top, left = center_corner(scaled, (height, width))
    return image[:, top : top + height, left : left + width]


def _check_range(batch: Tensor) -> None:
    global _warned
    if not batch.numel():
        return
    low, high = float(batch.min()), float(batch.max())
    if not (low >= -1 - TOLERANCE and high <= 1 + TOLERANCE):  # NaN fails both
        raise ImageError(
            f"images must lie in [-1, 1], got values from {low:.3g} to {high:.3g}; "
            "use image / 127.5 - 1 for 0..255, or 2 * image - 1 for 0..1"
        )
    if 0 <= low < 0.1 and high > 0.5 and not _warned:  # an image in [-1, 1] without any dark pixel is rare
        _warned = True
        warnings.warn(
            f"images have values from {low:.2g} to {high:.2g}, as if they were in [0, 1]; a model takes [-1, 1]: use "
            "2 * images - 1. This is said once",
            stacklevel=_callers_level(),
        )


def _callers_level() -> int:
    """Return the level, for ``warnings.warn`` in the function that asks, of the caller's line.

    That is the innermost outside of this package and torch.
    """
    level, frame = 1, sys._getframe(1)
    while frame.f_back and frame.f_globals.get("__name__", "").partition(".")[0] in ("flowmo", "torch"):
        level, frame = level + 1, frame.f_back
    return level


def _is_pillow(images: Any) -> bool:
    """Return whether it is a Pillow image, without importing Pillow where nobody has."""
    return any(base.__module__ == "PIL.Image" and base.__name__ == "Image" for base in type(images).__mro__)
