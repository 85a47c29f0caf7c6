"""Stage 1B, mode-seeking post-training: the decoder alone, on what it paints (Section 3.3, Eq. 10-12; A.2; D1-D6)."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from ..flow import image_estimate, integrate, interpolate, random_grid, velocity_target
from ..quantize import Average
from ..tokenizer import FlowMo
from .mode_matching import Draws, LossWeights, PerceptualDistance, bit_share, encode


class ModeSeekingLoss(NamedTuple):
    """Scalars of Eq. 11-12; ``total`` is what is minimised. sample: L_sample, the mean d_perc of the samples. The terms
    of the quantizer have no gradient, as the encoder is frozen, and stay in the sum as published (D2)."""

    total: Tensor
    flow: Tensor
    sample: Tensor
    sample_entropy: Tensor
    codebook_entropy: Tensor
    commitment: Tensor
    bit_share: Tensor | None = None


class ChainDraws(NamedTuple):
    """Where chains start and what levels they visit. noise: S 3 H W; grid: S (n + 1), from 1 to 0, or (n + 1,) for all.
    S: the first images of a batch that get a chain."""

    noise: Tensor
    grid: Tensor


def draw_chain(
    image: Tensor, num_steps: int, generator: torch.Generator, share: float = 1.0, grid: Tensor | None = None
) -> ChainDraws:
    """Fresh noise, not the image as Eq. 11 has it, and random gaps for each image by itself (D1), for a share of the
    batch. grid: a fixed one (n + 1,) instead."""
    count, device = max(1, round(share * image.shape[0])), generator.device
    noise = torch.randn((count, *image.shape[1:]), generator=generator, device=device)
    if grid is None:
        uniforms = 1 - torch.rand((count, num_steps + 1), generator=generator, device=device)  # never exactly 0
        grid = random_grid(uniforms)
    return ChainDraws(noise.to(image.device), grid.to(image.device))


def sample_chain(model: FlowMo, code: Tensor, draws: ChainDraws, recompute: bool = True) -> Tensor:
    """The n-step sample of Eq. 10, S 3 H W, with gradients through every step: unguided, not clipped, its state in the
    noise's precision whatever the network computes in (D2).

    code: S N K. recompute: each step keeps its state alone and computes the rest again in the backward pass (D6).
    """

    def velocity(x: Tensor, t: Tensor) -> Tensor:
        return model.velocity(x, code, t, exact=True)

    def recomputed(x: Tensor, t: Tensor) -> Tensor:
        return checkpoint(velocity, x, t, use_reentrant=False, preserve_rng_state=False)

    return integrate(recomputed if recompute else velocity, draws.noise, draws.grid)


def mode_seeking_loss(
    model: FlowMo,
    image: Tensor,
    draws: Draws,
    chain: ChainDraws | None,
    sample_weight: float,
    perceptual: PerceptualDistance | None,
    weights: LossWeights,
    share: float = 1.0,
    recompute: bool = True,
    average: Average | None = None,
) -> ModeSeekingLoss:
    """Eq. 12 on one batch, image B 3 H W in [-1, 1]: L_flow + lambda_sample L_sample.

    draws: of the flow term, with code dropout (C3). chain: of L_sample, whose codes are never dropped; None compares
    the one-step image estimate of the flow term, of a ``share`` of the batch, in its place (Table 7, F7). With a
    sample_weight of 0 there is no L_sample. weights: of the quantizer's terms. recompute: see :func:`sample_chain`.
    average: see ``FlowMo.quantize``.
    """
    quantized = encode(model, image, average)
    x_t = interpolate(image, draws.noise, draws.t)
    velocity = model.velocity(x_t, quantized.code, draws.t, draws.keep).float()
    flow = F.mse_loss(velocity, velocity_target(image, draws.noise))
    sample = flow.new_zeros(())
    if perceptual is not None and sample_weight:
        if chain is None:
            painted = image_estimate(x_t, velocity, draws.t)[: max(1, round(share * image.shape[0]))]
        else:
            painted = sample_chain(model, quantized.code[: len(chain.noise)], chain, recompute)
        sample = perceptual(painted, image[: len(painted)]).mean()
    total = flow + sample_weight * sample + weights.quantizer_loss(quantized.losses)
    return ModeSeekingLoss(total, flow, sample, *quantized.losses, bit_share(model, quantized))
