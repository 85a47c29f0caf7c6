"""Finite scalar quantization, the ablation of Table 4: each channel is rounded to a few levels (F4)."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ..config import FlowMoConfig
from ..errors import ConfigError
from .base import Average, Quantized, Quantizer, no_losses


class FSQ(Quantizer):
    """Finite scalar quantization of a model's configuration; it has no weights."""

    def __init__(self, config: FlowMoConfig) -> None:
        super().__init__()
        self.levels = config.quantizer.levels
        self.latent_dim = config.num_groups * len(self.levels)

    def forward(self, latent: Tensor, average: Average | None = None) -> Quantized:
        return quantize_fsq(latent, self.levels)

    def decode(self, tokens: Tensor) -> Tensor:
        return fsq_code_from_tokens(tokens, self.levels)


def quantize_fsq(latent: Tensor, levels: tuple[int, ...]) -> Quantized:
    """Return code in [-1, 1], tokens B N G and no losses of a latent B N (G len(levels)), whose shape the code has.

    A group's channels are contiguous; its integer is mixed-radix, first channel least significant.
    """
    size = torch.tensor(levels, device=latent.device, dtype=torch.float32)
    x = latent.float().unflatten(-1, (-1, len(levels)))  # B N G channels
    # Bounding puts each channel into (-1/2, levels - 1/2) so that rounding reaches every level, none beyond.
    position = (x.tanh() + 1) / 2 * (size - 1e-3) - 0.5 + 0.5e-3
    rounded = position.round()
    tokens = (rounded.long() * _radix(levels, latent.device)).sum(dim=-1)
    straight_through = position + (rounded - position).detach()
    return Quantized((straight_through / (size - 1) * 2 - 1).flatten(-2), tokens, no_losses(latent))


def fsq_code_from_tokens(tokens: Tensor, levels: tuple[int, ...]) -> Tensor:
    """Return the code B N (G len(levels)) in [-1, 1], float32, of integers B N G.

    Raises ConfigError for an integer of prod(levels) or more: bits can hold it, but no latent gives it.
    """
    count = math.prod(levels)
    if tokens.numel() and not 0 <= int(tokens.min()) <= int(tokens.max()) < count:
        raise ConfigError(
            f"tokens of FSQ levels {levels} lie between 0 and {count - 1}, got {int(tokens.min())} to "
            f"{int(tokens.max())}; they were made by another model"
        )
    size = torch.tensor(levels, device=tokens.device)
    digits = (tokens.unsqueeze(-1) // _radix(levels, tokens.device)) % size
    return (digits.float() / (size - 1) * 2 - 1).flatten(-2)


def _radix(levels: tuple[int, ...], device: torch.device) -> Tensor:
    return torch.cat([torch.ones(1), torch.tensor(levels[:-1]).cumprod(0)]).long().to(device)
