"""Binary spherical quantization, which the paper names as tried and worse: signs of a latent on the unit sphere.

Each token is scaled to length 1 and goes to the nearest corner of the cube within the sphere, +-1 / sqrt(K) in each
channel. The entropy of the mean code is the sum of those of its bits, an upper bound that needs no table of codes.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from ..config import FlowMoConfig
from .base import Average, Quantized, Quantizer, QuantizerLosses, straight_through
from .lfq import code_from_tokens, tokens_from_code


class BSQ(Quantizer):
    """Binary spherical quantization of a model's configuration; it has no weights."""

    has_bits = True

    def __init__(self, config: FlowMoConfig) -> None:
        super().__init__()
        self.bits_per_group, self.config = config.bits_per_group, config.quantizer
        self.latent_dim, self.levels = config.bits_per_token, (2,) * config.bits_per_group

    def forward(self, latent: Tensor, average: Average | None = None) -> Quantized:
        q = self.config
        return quantize_bsq(latent, self.bits_per_group, q.temperature, average, q.straight_through == "rotation")

    def decode(self, tokens: Tensor) -> Tensor:
        signs = code_from_tokens(tokens, self.bits_per_group)
        return signs / math.sqrt(signs.shape[-1])


def quantize_bsq(
    latent: Tensor, bits_per_group: int, temperature: float = 0.1, average: Average | None = None, rotate: bool = False
) -> Quantized:
    """Return code, tokens and losses of a latent B N K: corners of the unit sphere with a straight-through gradient.

    A channel of the code is +-1 / sqrt(K). The commitment loss is the squared distance of a token from its corner, at
    most 2.
    average: see :func:`bit_entropies`. rotate: see :func:`straight_through`.
    """
    unit = F.normalize(latent.float(), dim=-1)
    corner = torch.where(unit > 0, 1.0, -1.0) / math.sqrt(latent.shape[-1])
    sample_entropy, codebook_entropy = bit_entropies(unit, bits_per_group, temperature, average)
    losses = QuantizerLosses(sample_entropy, codebook_entropy, (unit - corner).square().sum(-1).mean())
    return Quantized(straight_through(unit, corner, rotate), tokens_from_code(corner, bits_per_group), losses)


def bit_entropies(
    unit: Tensor, bits_per_group: int, temperature: float, average: Average | None = None
) -> tuple[Tensor, Tensor]:
    """Return the mean entropy of a group's code, and the entropy of its mean code as if bits were independent, in nats.

    unit: B N K of length 1. A bit's probability is that of a softmax of 2 u.c / temperature over the corners c, which
    factorises: p = sigmoid(4 u / (temperature sqrt(K))). Groups count as in LFQ: both are of ``bits_per_group`` bits,
    over all groups. average: over processes, for the mean code (A7).
    """
    logits = 4.0 / (temperature * math.sqrt(unit.shape[-1])) * unit
    positive, negative = F.logsigmoid(logits), F.logsigmoid(-logits)
    sample_entropy = -(positive.exp() * positive + negative.exp() * negative).mean() * bits_per_group
    mean = positive.exp().unflatten(-1, (bits_per_group, -1)).mean((0, 1, 3))  # of each bit, over groups (A8)
    if average is not None:
        mean = mean + (average(mean.detach()) - mean.detach())
    return sample_entropy, -(mean * mean.clamp_min(1e-12).log() + (1 - mean) * (1 - mean).clamp_min(1e-12).log()).sum()
