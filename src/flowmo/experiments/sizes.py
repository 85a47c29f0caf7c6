"""Pictures of many sizes by one model of any size: quality, and the step across the borders of tiles (O12).

Originals are photographs at the resolution that they have. A picture that is larger than they are is a window of
many photographs side by side, so that its details are as fine as theirs; an enlarged one would be easier to code. The
window begins in the middle of a patch, so that the borders between photographs do not fall on those of patches.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ..data import fit_image, to_tensor
from ..metrics.pixels import psnr
from ..tiles import tiles
from ..tokenizer import FlowMo

SIZES = ((64, 64), (128, 128), (256, 256), (512, 512), (512, 768))
"""(height, width) in pixels."""
Distance = Callable[[Tensor, Tensor], Tensor]


def tiled_image(photographs: Sequence[Image.Image], first: int, height: int, width: int) -> Image.Image:
    """Return a picture of a size.

    It is photograph ``first``, scaled down and cropped, where that is large enough; else a window of photographs side
    by side, in their order from ``first`` on, each cropped to a square of the smallest side.
    """
    photo = photographs[first % len(photographs)]
    if photo.height >= height and photo.width >= width:
        return fit_image(photo, height, width)
    side = min(min(each.size) for each in photographs)
    offset = side // 2 + 8
    rows, columns = (-(-(length + offset) // side) for length in (height, width))
    canvas = Image.new("RGB", (columns * side, rows * side))
    for k in range(rows * columns):
        part = fit_image(photographs[(first + k) % len(photographs)], side, side)
        canvas.paste(part, (k % columns * side, k // columns * side))
    return canvas.crop((offset, offset, offset + width, offset + height))


def quality(
    model: FlowMo, images: Sequence[Image.Image], rates: Sequence[int], lpips: Distance, first_seed: int = 0
) -> dict[int, dict[str, float]]:
    """Return the means of ``psnr`` (dB) and ``lpips_alex`` of pictures of one size, by bits a token.

    Picture i is sampled from seed ``first_seed`` + i; reconstructions are rounded to 8 bits.
    """
    found: dict[int, list[tuple[float, float]]] = {bits: [] for bits in rates}
    for i, image in enumerate(images):
        x = to_tensor(image)[None]
        with torch.inference_mode():
            tokens = model.tokenize(x)
            for bits in rates:
                y = model.detokenize(tokens.truncate(bits), seed=[first_seed + i])
                y = ((y + 1) * 127.5).round().clamp(0, 255) / 127.5 - 1
                found[bits].append((float(psnr(y, x)), float(lpips(y, x))))
    return {
        bits: dict(zip(("psnr", "lpips_alex"), np.mean(values, axis=0).round(4).tolist(), strict=True))
        for bits, values in found.items()
    }


def seam_step(images: Tensor, reference: Tensor, patch: int) -> tuple[float, float]:
    """Return the mean absolute step of the error across the borders of tiles, and across the other borders of patches.

    images, reference: B 3 H W of one size that takes several tiles, patch: side of a token in pixels. A border of a
    tile is where it begins or ends inside the image. Steps are between neighbouring pixels, on the scale of the images;
    where no seam is seen the two numbers are alike. Raises ValueError for images that are one tile.
    """
    rows, columns = images.shape[-2] // patch, images.shape[-1] // patch
    plan = tiles(rows, columns)
    if len(plan) == 1:
        raise ValueError(f"images of {rows} x {columns} tokens are one tile; they have no borders of tiles")
    error = (images - reference).cpu().double()
    at_border: list[float] = []
    elsewhere: list[float] = []
    across = {
        -1: (columns, {tile.left for tile in plan} | {tile.right for tile in plan}),
        -2: (rows, {tile.top for tile in plan} | {tile.bottom for tile in plan}),
    }
    for axis, (length, borders) in across.items():
        for k in range(1, length):
            step = error.select(axis, k * patch) - error.select(axis, k * patch - 1)
            (at_border if k in borders else elsewhere).append(float(step.abs().mean()))
    return float(np.mean(at_border)), float(np.mean(elsewhere))
