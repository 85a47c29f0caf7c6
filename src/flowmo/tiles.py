"""Images of any size in tiles that overlap, so that memory does not grow with the image and no seam is seen.

Only models with a transform use it: their tokens belong to patches, so a tile's tokens are a part of the image's. A
decoded pixel depends on the tokens of the tiles that cover it and on nothing else.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import chain

import torch
import torch.nn.functional as F
from torch import Tensor

from .config import FlowMoConfig

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
    """A rectangle of tokens."""

    top: int  # its first row
    bottom: int  # the row after its last
    left: int  # its first column
    right: int  # the column after its last


def patch_of(config: FlowMoConfig) -> int:
    """Return the pixels that both sides of an image must be a multiple of."""
    if config.transform is not None:
        return config.transform.patch_size
    return math.lcm(config.encoder.patch_size, config.decoder.patch_size)


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


def encode_tiled(encode: Callable[[Tensor], Tensor], images: Tensor, patch: int) -> Tensor:
    """Return the latents B N K of images B 3 H W, encoded tile by tile; a token is of the tile that it is deepest in.

    encode: images of a tile, of the same type as all, to their latents in reading order.
    """
    rows, columns = images.shape[2] // patch, images.shape[3] // patch
    plan = tiles(rows, columns)
    whole_patches = not (images.shape[2] % patch or images.shape[3] % patch)
    if len(plan) == 1 or not whole_patches:  # the encoder says what is wrong with parts of patches
        return encode(images)
    found = None
    for tile in plan:
        y, x = slice(tile.top * patch, tile.bottom * patch), slice(tile.left * patch, tile.right * patch)
        latents = encode(images[..., y, x]).unflatten(1, (tile.bottom - tile.top, tile.right - tile.left))
        if found is None:
            found = latents.new_empty(len(latents), rows, columns, latents.shape[-1])
        # Later tiles lie to the right of these and below them, and take their half of what is shared.
        down = (_shared(tile.top, rows) + 1) // 2
        right = (_shared(tile.left, columns) + 1) // 2
        found[:, tile.top + down : tile.bottom, tile.left + right : tile.right] = latents[:, down:, right:]
    assert found is not None
    return found.flatten(1, 2)


def _shared(start: int, length: int) -> int:
    """Return how many tokens a span shares with the one before it; none of the first."""
    return max((stop - start for first, stop in spans(length) if first < start < stop), default=0)


def decode_tiled(
    decode: DecodeTile, code: Tensor, noise: Tensor, patch: int, finish: Callable[[Tensor], Tensor] = lambda band: band
) -> Tensor:
    """Return the image B 3 H W of a code B N K, decoded tile by tile and blended where tiles overlap.

    noise: B 3 H W, of which each tile gets its part, so that neighbours start alike. patch: side of a token in pixels.
    finish: what becomes of each band of rows B 3 h W, for example 8 bits, before the next one is decoded.
    """
    bands = _bands(decode, code, noise, patch)
    first = finish(next(bands))
    if first.shape[2] == noise.shape[2]:
        return first
    image, top = first.new_empty(*first.shape[:2], *noise.shape[2:]), 0
    for band in chain([first], map(finish, bands)):
        image[:, :, top : top + band.shape[2]] = band
        top += band.shape[2]
    return image


def _bands(decode: DecodeTile, code: Tensor, noise: Tensor, patch: int) -> Iterator[Tensor]:
    """Yield the image from the top downwards in bands B 3 h W, each when its last tile is decoded."""
    rows, columns = noise.shape[-2] // patch, noise.shape[-1] // patch
    if len(tiles(rows, columns)) == 1:
        yield decode(code, noise)
        return
    lattice = code.unflatten(1, (rows, columns))
    down = spans(rows)
    below = [top for top, _ in down[1:]] + [rows]  # where the next row of tiles begins
    image = torch.zeros_like(noise[:, :, : down[0][1] * patch])
    total = torch.zeros_like(image[:1, :1])
    for (top, bottom), next_top in zip(down, below, strict=True):
        y = slice(top * patch, bottom * patch)
        vertical = _ramp(top, bottom, rows, patch, noise)[:, None]
        for left, right in spans(columns):
            x = slice(left * patch, right * patch)
            weight = vertical * _ramp(left, right, columns, patch, noise)[None, :]
            part = lattice[:, top:bottom, left:right].flatten(1, 2)
            image[..., x] += weight * decode(part, noise[..., y, x])
            total[..., x] += weight
        done = (next_top - top) * patch
        yield image[:, :, :done] / total[:, :, :done]
        image, total = _moved_up(image, done), _moved_up(total, done)


def _moved_up(band: Tensor, rows: int) -> Tensor:
    """Return what is left of a band below its first ``rows`` pixels, with zeros below it."""
    return F.pad(band[:, :, rows:], (0, 0, 0, rows))


def _ramp(start: int, stop: int, length: int, patch: int, like: Tensor) -> Tensor:
    """Return the weights of a tile's pixels along one axis.

    They are 1 inside, falling to nearly 0 over the overlap where it has a neighbour.
    """
    weight = torch.ones((stop - start) * patch, dtype=like.dtype, device=like.device)
    slope = (torch.arange(OVERLAP * patch, dtype=like.dtype, device=like.device) + 0.5) / (OVERLAP * patch)
    if start > 0:
        weight[: len(slope)] = slope
    if stop < length:
        weight[-len(slope) :] = torch.minimum(weight[-len(slope) :], slope.flip(0))
    return weight
