"""Images of any size in tiles that overlap, so that memory does not grow with the image and no seam is seen.

Only models with a transform use it: their tokens belong to patches, so a tile's tokens are a part of the image's. A
decoded pixel depends on the tokens of the tiles that cover it and on nothing else.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

WHOLE_TOKENS = 2_048
"""An image of at most so many tokens is decoded in one piece: 1,024 x 512 pixels with patches of 16."""
TILE_SIDE = 24
"""Tokens along the side of a tile."""
OVERLAP = 6
"""Tokens that neighbouring tiles share; their images are blended over these, from one to the other."""

DecodeTile = Callable[[Tensor, Tensor], Tensor]
"""(code B n K, noise B 3 h w) -> image B 3 h w."""


@dataclass(frozen=True)
class Tile:
    """A rectangle of tokens: rows ``top`` to ``bottom``, columns ``left`` to ``right``, ends not included."""

    top: int
    bottom: int
    left: int
    right: int


def spans(length: int, side: int = TILE_SIDE, overlap: int = OVERLAP) -> list[tuple[int, int]]:
    """Return the fewest spans of at most ``side`` that cover ``length`` and overlap by at least ``overlap``, evenly."""
    if length <= side:
        return [(0, length)]
    count = -(-(length - overlap) // (side - overlap))
    starts = [round(k * (length - side) / (count - 1)) for k in range(count)]
    return [(start, start + side) for start in starts]


def tiles(rows: int, columns: int) -> list[Tile]:
    """Return the tiles of an image of so many tokens, in reading order; one where it needs no tiles."""
    if rows * columns <= WHOLE_TOKENS:
        return [Tile(0, rows, 0, columns)]
    return [Tile(top, bottom, left, right) for top, bottom in spans(rows) for left, right in spans(columns)]


def decode_tiled(decode: DecodeTile, code: Tensor, noise: Tensor, patch: int) -> Tensor:
    """Return the image B 3 H W of a code B N K, decoded tile by tile and blended where tiles overlap.

    noise: B 3 H W, of which each tile gets its part, so that neighbours start alike. patch: side of a token in pixels.
    """
    rows, columns = noise.shape[-2] // patch, noise.shape[-1] // patch
    plan = tiles(rows, columns)
    lattice = code.unflatten(1, (rows, columns))
    if len(plan) == 1:
        return decode(code, noise)
    image, total = torch.zeros_like(noise), torch.zeros_like(noise[:1, :1])
    for tile in plan:
        part = lattice[:, tile.top : tile.bottom, tile.left : tile.right].flatten(1, 2)
        y = slice(tile.top * patch, tile.bottom * patch)
        x = slice(tile.left * patch, tile.right * patch)
        weight = (
            _ramp(tile.top, tile.bottom, rows, patch, noise)[:, None]
            * _ramp(tile.left, tile.right, columns, patch, noise)[None, :]
        )
        image[..., y, x] += weight * decode(part, noise[..., y, x])
        total[..., y, x] += weight
    return image.div_(total)  # in place, as is all that is as large as the image


def _ramp(start: int, stop: int, length: int, patch: int, like: Tensor) -> Tensor:
    """Weights of a tile's pixels along one axis: 1 inside, falling to nearly 0 over the overlap where it has a
    neighbour."""
    weight = torch.ones((stop - start) * patch, dtype=like.dtype, device=like.device)
    slope = (torch.arange(OVERLAP * patch, dtype=like.dtype, device=like.device) + 0.5) / (OVERLAP * patch)
    if start > 0:
        weight[: len(slope)] = slope
    if stop < length:
        weight[-len(slope) :] = torch.minimum(weight[-len(slope) :], slope.flip(0))
    return weight
