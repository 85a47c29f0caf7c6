"""Cosmos' discrete image tokenizer: Haar wavelets, convolutions, one attention, finite scalars (Table 1)."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...errors import WeightsError
from .network import (
    Attention,
    Downsample,
    Levels,
    PeerNetwork,
    Residual,
    Shapes,
    State,
    Upsample,
    norm,
    residuals,
    run,
)

LEVELS = (8, 8, 8, 5, 5, 5)
HAAR_LEVELS = 2
HAAR = float(torch.tensor(0.5).sqrt())  # rounded to float32, as in the published module


def haar(x: Tensor) -> Tensor:
    """Return the Haar bands B 4C H/2 W/2 of B C H W: means and differences along the width, then along the height."""
    left, right = x[..., 0::2] * HAAR, x[..., 1::2] * HAAR
    bands = []
    for wide in (left + right, left - right):
        top, bottom = wide[..., 0::2, :] * HAAR, wide[..., 1::2, :] * HAAR
        bands += [top + bottom, top - bottom]
    return torch.cat(bands, 1) / 2


def inverse_haar(x: Tensor) -> Tensor:
    """Return B C 2h 2w from Haar bands B 4C h w, the inverse of :func:`haar`."""
    bands = (2 * x).chunk(4, 1)
    low, high = (
        torch.stack([(a + b) * HAAR, (a - b) * HAAR], -2).flatten(-3, -2)  # rows
        for a, b in (bands[:2], bands[2:])
    )
    return torch.stack([(low + high) * HAAR, (low - high) * HAAR], -1).flatten(-2)


class Middle(nn.Module):
    """Two residual blocks with attention between them."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.block_1, self.attn_1, self.block_2 = Residual(width, width), Attention(width), Residual(width, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.block_2(self.attn_1(self.block_1(x)))


class Encoder(nn.Module):
    """Haar bands of images B 3 H W, brought by levels of residual blocks to latents B C h w."""

    def __init__(self, first: int, widths: list[int], count: int, halvings: int, channels: int) -> None:
        super().__init__()
        self.conv_in = nn.Conv2d(3 * 4**HAAR_LEVELS, first, 3, padding=1)
        self.down: Levels = nn.ModuleList()
        for i, (inwards, width) in enumerate(zip([first, *widths], widths, strict=False)):
            level = nn.ModuleDict({"block": residuals(inwards, width, count)})
            if i < halvings:
                level["downsample"] = Downsample(width)
            self.down.append(level)
        self.mid = Middle(widths[-1])
        self.norm_out, self.conv_out = norm(widths[-1]), nn.Conv2d(widths[-1], channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        for _ in range(HAAR_LEVELS):
            x = haar(x)
        x = self.conv_in(x)
        for level in self.down:
            x = run(level["block"], x)
            x = level["downsample"](x) if "downsample" in level else x
        return self.conv_out(F.silu(self.norm_out(self.mid(x))))


class Decoder(nn.Module):
    """The encoder backwards: latents B C h w to images B 3 H W.

    Levels are numbered by size: the last is the coarsest and runs first.
    """

    def __init__(self, channels: int, widths: list[int], count: int, halvings: int, coarsest: int) -> None:
        super().__init__()
        self.conv_in = nn.Conv2d(channels, coarsest, 3, padding=1)
        self.mid = Middle(coarsest)
        self.up: Levels = nn.ModuleList()
        for i, (width, inwards) in enumerate(zip(widths, [*widths[1:], coarsest], strict=True)):
            level = nn.ModuleDict({"block": residuals(inwards, width, count)})
            if i >= len(widths) - halvings:
                level["upsample"] = Upsample(width)
            self.up.append(level)
        self.norm_out, self.conv_out = norm(widths[0]), nn.Conv2d(widths[0], 3 * 4**HAAR_LEVELS, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.mid(self.conv_in(x))
        for level in reversed(self.up):
            x = run(level["block"], x)
            x = level["upsample"](x) if "upsample" in level else x
        x = self.conv_out(F.silu(self.norm_out(x)))
        for _ in range(HAAR_LEVELS):
            x = inverse_haar(x)
        return x


class Cosmos(PeerNetwork):
    """Cosmos' discrete tokenizers DI8x8 and DI16x16.

    Codes are float32 here; the published modules round them to bfloat16.
    """

    ignored = (r".*patcher\..*", r"(inv_)?quant(izer)?\..*")  # constants that a traced module carries along

    def __init__(self, shapes: Shapes, levels: tuple[int, ...] = LEVELS) -> None:
        super().__init__()
        channels, dimensions = shapes("encoder.conv_out.weight")[0], shapes("quant_conv.weight")[0]
        if dimensions != len(levels):
            raise WeightsError(
                f"{shapes.where} has {dimensions} numbers a token, but the levels are {levels}; the files of a "
                "continuous tokenizer (CI) have no tokens, take those of DI"
            )
        self.levels, self.num_codes = levels, math.prod(levels)
        widths, ups = shapes.widths("encoder.down", "block"), shapes.widths("decoder.up", "block")
        down, up = (
            sum(f"{part}.{i}.{name}.conv.weight" in shapes.state for i in range(len(widths)))
            for part, name in (("encoder.down", "downsample"), ("decoder.up", "upsample"))
        )
        first, coarsest = shapes("encoder.conv_in.weight")[0], shapes("decoder.conv_in.weight")[0]
        self.encoder = Encoder(first, widths, shapes.count("encoder.down.0.block"), down, channels)
        inwards = shapes("decoder.conv_in.weight")[1]
        self.decoder = Decoder(inwards, ups, shapes.count("decoder.up.0.block"), up, coarsest)
        self.quant_conv = nn.Conv2d(channels, dimensions, 1)
        self.post_quant_conv = nn.Conv2d(dimensions, inwards, 1)
        self.factor = 2 ** (HAAR_LEVELS + down)

    def latent(self, x: Tensor) -> Tensor:
        return self.quant_conv(self.encoder(x))

    def bounded(self, latent: Tensor) -> Tensor:
        """Return the latent with each channel inside the range that rounds to its number of levels."""
        levels = self._row(latent, list(self.levels))
        half = (levels - 1) * (1 + 1e-3) / 2
        offset = 0.5 * (levels % 2 == 0)
        return (latent + (offset / half).atanh()).tanh() * half - offset

    def indices(self, latent: Tensor) -> Tensor:
        digits = self.bounded(latent).round().long() + self._row(latent, list(self.levels)).long() // 2
        return (digits * self._row(latent, self._basis()).long()).sum(1)

    def codes(self, indices: Tensor) -> Tensor:
        parts = [
            (indices // basis) % level / (level // 2) - 1
            for basis, level in zip(self._basis(), self.levels, strict=True)
        ]
        return torch.stack(parts, 1)

    def pixels(self, codes: Tensor) -> Tensor:
        return self.decoder(self.post_quant_conv(codes))

    def _basis(self) -> list[int]:
        return [math.prod(self.levels[:i]) for i in range(len(self.levels))]

    @staticmethod
    def _row(like: Tensor, values: list[int]) -> Tensor:
        return torch.tensor(values, device=like.device, dtype=like.dtype)[:, None, None]


def cosmos(state: State, where: str) -> Cosmos:
    """Return the network that a state dict describes, without its weights."""
    return Cosmos(Shapes(state, where))
