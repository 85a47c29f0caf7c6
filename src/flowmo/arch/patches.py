"""Images to rows of patches and back (Section 3.1)."""

from __future__ import annotations

from torch import Tensor

from ..errors import ImageError


def patchify(image: Tensor, patch_size: int) -> Tensor:
    """Return the patches of images B 3 H W in reading order: B (H/p W/p) (p p 3).

    Colour is innermost, as the released weights want. Raises ImageError when a side is not a multiple of the patch
    size.
    """
    batch, channels, height, width = image.shape
    p = patch_size
    if height % p or width % p or not height or not width:
        raise ImageError(
            f"image sides {height} x {width} must be multiples of the patch size {p}; resize or pad the image, or give "
            "it to tokenize or reconstruct in a list, [image], whose images are scaled to the model's size"
        )
    x = image.reshape(batch, channels, height // p, p, width // p, p)
    return x.permute(0, 2, 4, 3, 5, 1).reshape(batch, (height // p) * (width // p), p * p * channels)


def unpatchify(patches: Tensor, patch_size: int, height: int, width: int) -> Tensor:
    """Return the images B 3 H W of patches B (H/p W/p) (p p 3); the inverse of :func:`patchify`."""
    batch, p = patches.shape[0], patch_size
    channels = patches.shape[-1] // p**2
    x = patches.reshape(batch, height // p, width // p, p, p, channels)
    return x.permute(0, 5, 1, 3, 2, 4).reshape(batch, channels, height, width)
