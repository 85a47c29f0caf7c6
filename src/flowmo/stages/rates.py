"""How many bits of its tokens each image keeps in a step of training, so that one model decodes every rate (O12)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import ConfigError


@dataclass(frozen=True)
class RateConfig:
    """The rates of a batch. By default every image keeps all bits; 0.4 and 0.25 suit a model for any rate."""

    full_share: float = 1.0  # share of the images that keep all bits
    often_share: float = 0.0  # share of the images that keep ``often`` bits
    often: int = 18  # a rate that is trained more than others, as far as the model has so many bits
    fewest: int = 9  # the least bits that any other image keeps; uniform in the logarithm from there to all

    def __post_init__(self) -> None:
        if not (0 <= self.full_share <= 1 and 0 <= self.often_share <= 1 - self.full_share):
            raise ConfigError("rates.full_share and rates.often_share must be at least 0 and at most 1 together")
        if min(self.often, self.fewest) < 1:
            raise ConfigError("rates.often and rates.fewest must be at least 1")


def kept_bits(config: RateConfig, image: Tensor, bits: int, generator: torch.Generator) -> Tensor | None:
    """Return how many bits a token each image of a batch keeps, on the images' device.

    Where all keep all of them, it is None, and nothing is drawn.
    """
    return draw_kept_bits(config, len(image), bits, generator).to(image.device) if config.full_share < 1 else None


def draw_kept_bits(config: RateConfig, batch: int, bits: int, generator: torch.Generator) -> Tensor:
    """Return how many bits a token each image keeps, (B,) int64 from 1 to ``bits``, drawn from ``generator``."""
    device = generator.device
    choice = torch.rand(batch, generator=generator, device=device)
    uniform = torch.rand(batch, generator=generator, device=device)
    low = math.log(min(config.fewest, bits))
    other = torch.exp(low + uniform * (math.log(bits + 1) - low)).long().clamp(1, bits)
    often = torch.full_like(other, min(config.often, bits))
    kept = torch.where(choice < config.full_share + config.often_share, often, other)
    return torch.where(choice < config.full_share, torch.full_like(kept, bits), kept)
