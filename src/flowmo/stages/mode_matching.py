"""Stage 1A, mode-matching: encoder and decoder end to end (Section 3.2, Eq. 4-9)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from ..flow import ThickTailedLogitNormal, image_estimate, interpolate, velocity_target
from ..quantize import Average, Quantized, QuantizerLosses
from ..tokenizer import FlowMo

PerceptualDistance = Callable[[Tensor, Tensor], Tensor]
"""d_perc: two batches of images B 3 H W in [-1, 1] -> distances (B,). The second is the reference."""


@dataclass(frozen=True)
class LossWeights:
    """The lambdas of Eq. 9, as the released weights were trained (A1, A11). A perceptual weight of 0 skips d_perc."""

    perceptual: float = 0.1
    entropy: float = 0.0025
    commitment: float = 0.000625

    def quantizer_loss(self, losses: QuantizerLosses) -> Tensor:
        return self.entropy * losses.entropy + self.commitment * losses.commitment


class Draws(NamedTuple):
    """The randomness of one step. noise: B 3 H W; t: (B,); keep: (B,) bool, False where the code is dropped (C3)."""

    noise: Tensor
    t: Tensor
    keep: Tensor


class ModeMatchingLoss(NamedTuple):
    """Scalars of Eq. 5-9; ``total`` is what is minimised. bit_share: see :func:`bit_share`."""

    total: Tensor
    flow: Tensor
    perceptual: Tensor
    sample_entropy: Tensor
    codebook_entropy: Tensor
    commitment: Tensor
    bit_share: Tensor | None = None


def draw(image: Tensor, noise_levels: ThickTailedLogitNormal, code_dropout: float, generator: torch.Generator) -> Draws:
    """Noise, noise level and code dropout for a batch of images, all from ``generator`` on its device."""
    batch, device = image.shape[0], generator.device
    return Draws(
        torch.randn(image.shape, generator=generator, device=device).to(image.device),
        noise_levels.sample(batch, generator).to(image.device),
        (torch.rand(batch, generator=generator, device=device) >= code_dropout).to(image.device),
    )


def encode(model: FlowMo, image: Tensor, average: Average | None = None) -> Quantized:
    """The code of a batch with its loss terms; without gradient, and the memory for one, where the encoder is frozen:
    where none of its weights wants one (A14)."""
    trains = any(p.requires_grad for p in model.encoder.parameters())
    with torch.set_grad_enabled(trains and torch.is_grad_enabled()):
        return model.quantize(model.encode(image), average)


def bit_share(model: FlowMo, quantized: Quantized) -> Tensor | None:
    """The share of the batch in which each bit of the code is set, N K, to see whether bits are used; None where the
    code has no bits of its own."""
    return (quantized.code.detach() > 0).float().mean(0) if model.config.quantizer.kind == "lfq" else None


def perceptual_loss(perceptual: PerceptualDistance, estimate: Tensor, image: Tensor, share: float) -> Tensor:
    """Mean d_perc over a share of the batch; a mean needs no other weight. Rows are independent, so the first ones
    will do."""
    rows = slice(max(1, round(share * image.shape[0])))
    return perceptual(estimate[rows], image[rows]).mean()


def mode_matching_loss(
    model: FlowMo,
    image: Tensor,
    draws: Draws,
    weights: LossWeights,
    perceptual: PerceptualDistance | None = None,
    perceptual_share: float = 1.0,
    average: Average | None = None,
) -> ModeMatchingLoss:
    """Eq. 9 on one batch, image B 3 H W in [-1, 1].

    perceptual_share: the share of the batch that d_perc sees, nearly the same objective at part of the cost.
    average: see ``FlowMo.quantize``.
    """
    quantized = encode(model, image, average)
    x_t = interpolate(image, draws.noise, draws.t)
    velocity = model.velocity(x_t, quantized.code, draws.t, draws.keep).float()
    flow = F.mse_loss(velocity, velocity_target(image, draws.noise))  # a mean, not Eq. 5's sum (A3)
    distance = flow.new_zeros(())
    if perceptual is not None and weights.perceptual:
        estimate = image_estimate(x_t, velocity, draws.t)  # not clamped (A5)
        distance = perceptual_loss(perceptual, estimate, image, perceptual_share)
    total = flow + weights.perceptual * distance + weights.quantizer_loss(quantized.losses)
    return ModeMatchingLoss(total, flow, distance, *quantized.losses, bit_share(model, quantized))
