"""Rotary positions on three axes for latent and image tokens in one sequence (Section 3.1; B3).

An image token sits at (0, row, column). A latent token sits at (i, i, i), or with ``latent_positions="grid"``
at (0, row, column) of a square lattice stretched over the image. Latents come first in the sequence.
"""

from __future__ import annotations

import functools
import math

import torch
from torch import Tensor

THETA = 10_000.0


def axis_sizes(head_dim: int) -> tuple[int, int, int]:
    """Return the channels of a head that each axis gets: 1/8, 7/16 and 7/16 of it, each even (8, 28, 28 of 64)."""
    rest = 2 * (head_dim * 7 // 32)
    return head_dim - 2 * rest, rest, rest


def positions(rows: int, columns: int, num_tokens: int, latent_positions: str) -> Tensor:
    """Return the positions of all tokens on the three axes, latents first: (N + rows columns) 3, float64."""
    row, column = torch.meshgrid(
        torch.arange(rows, dtype=torch.float64), torch.arange(columns, dtype=torch.float64), indexing="ij"
    )
    image = torch.stack([torch.zeros_like(row), row, column], dim=-1).reshape(-1, 3)
    if latent_positions == "patches":  # one latent token a patch of a coarser or equal lattice of the same shape
        per_side = math.isqrt(rows * columns // num_tokens)
        row, column = torch.meshgrid(
            *((torch.arange(n // per_side, dtype=torch.float64) + 0.5) * per_side - 0.5 for n in (rows, columns)),
            indexing="ij",
        )
        latent = torch.stack([torch.zeros_like(row), row, column], dim=-1).reshape(-1, 3)
    elif latent_positions == "diagonal":
        latent = torch.arange(num_tokens, dtype=torch.float64)[:, None].expand(-1, 3)
    else:
        side = math.isqrt(num_tokens)
        centre = (torch.arange(side, dtype=torch.float64) + 0.5) / side
        row, column = torch.meshgrid(centre * rows - 0.5, centre * columns - 0.5, indexing="ij")
        latent = torch.stack([torch.zeros_like(row), row, column], dim=-1).reshape(-1, 3)
    return torch.cat([latent, image])


@functools.lru_cache(maxsize=32)
@torch.inference_mode(False)
def rotary_table(
    rows: int, columns: int, num_tokens: int, latent_positions: str, head_dim: int, device: torch.device
) -> Tensor:
    """Return cosine and sine of every token's angles: L (head_dim / 2) 2, float32."""
    ids = positions(rows, columns, num_tokens, latent_positions)
    angles = []
    for axis, size in enumerate(axis_sizes(head_dim)):
        frequency = THETA ** -(torch.arange(0, size, 2, dtype=torch.float64) / size)
        angles.append(ids[:, axis, None] * frequency)
    angle = torch.cat(angles, dim=-1)
    return torch.stack([angle.cos(), angle.sin()], dim=-1).to(torch.float32).to(device)


def rotate(x: Tensor, table: Tensor) -> Tensor:
    """Return x, B heads L head_dim, with each pair of neighbouring channels turned by its token's angles.

    A pair is taken as a complex number, so that a turn is one product, many times as fast as four real products on
    every second channel. Compilers have no kernels for complex numbers, but fuse the four products, so they get those.
    Either way sines and cosines stay float32, and only the result is rounded to x's type.
    """
    wide = x if x.dtype in (torch.float32, torch.float64) else x.float()
    if torch.compiler.is_compiling():
        even, odd = wide.unflatten(-1, (-1, 2)).unbind(-1)
        cosine, sine = table.unbind(-1)
        turned = torch.stack([even * cosine - odd * sine, even * sine + odd * cosine], dim=-1)
        return turned.flatten(-2).to(x.dtype)
    turned = torch.view_as_complex(wide.unflatten(-1, (-1, 2))) * torch.view_as_complex(table)
    return torch.view_as_real(turned).flatten(-2).to(x.dtype)
