"""Images to rows of patches and back (Section 3.1)."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from ..errors import ImageError


def patchify(image: Tensor, patch_size: int) -> Tensor:
    """Return the patches of images B 3 H W in reading order: B (H/p W/p) (p p 3).

    Colour is innermost, as the released weights want. Raises ImageError when a side is not a multiple of the patch
    size.
    """
    batch, channels, height, width = image.shape
    p = patch_size
    _check_sides(height, width, p)
    x = image.reshape(batch, channels, height // p, p, width // p, p)
    return x.permute(0, 2, 4, 3, 5, 1).reshape(batch, (height // p) * (width // p), p * p * channels)


def unpatchify(patches: Tensor, patch_size: int, height: int, width: int) -> Tensor:
    """Return the images B 3 H W of patches B (H/p W/p) (p p 3); the inverse of :func:`patchify`."""
    batch, p = patches.shape[0], patch_size
    channels = patches.shape[-1] // p**2
    x = patches.reshape(batch, height // p, width // p, p, p, channels)
    return x.permute(0, 5, 1, 3, 2, 4).reshape(batch, channels, height, width)


def windows(image: Tensor, patch_size: int, overlap: int) -> Tensor:
    """Return the window around every patch of images B C H W, in reading order: B (H/p W/p) (k k C), k = p + 2 overlap.

    Colour is innermost, and outside of the image is zero. Without overlap these are the patches. Raises ImageError as
    :func:`patchify` does.
    """
    if not overlap:
        return patchify(image, patch_size)
    _check_sides(image.shape[2], image.shape[3], patch_size)
    side = patch_size + 2 * overlap
    found = F.unfold(image, side, padding=overlap, stride=patch_size)  # B (C k k) N
    return found.unflatten(1, (image.shape[1], side * side)).permute(0, 3, 2, 1).flatten(2)


def from_windows(found: Tensor, patch_size: int, overlap: int, height: int, width: int) -> Tensor:
    """Return the images B C H W to which windows B (H/p W/p) (k k C) add up; the transpose of :func:`windows`."""
    if not overlap:
        return unpatchify(found, patch_size, height, width)
    side = patch_size + 2 * overlap
    columns = found.unflatten(2, (side * side, -1)).permute(0, 3, 2, 1).flatten(1, 2)  # B (C k k) N
    return F.fold(columns, (height, width), side, padding=overlap, stride=patch_size)


def _check_sides(height: int, width: int, patch_size: int) -> None:
    if height % patch_size or width % patch_size or not height or not width:
        raise ImageError(
            f"image sides {height} x {width} must be multiples of the patch size {patch_size}; resize or pad the "
            "image, or give it to tokenize or reconstruct in a list, [image], whose images are scaled to the model's "
            "size"
        )
