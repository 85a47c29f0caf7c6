"""Few-step decoding, not in the paper (O11): the decoder learns to paint in one or a few unguided steps what many
guided ones paint, on a frozen code."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from ..flow import interpolate, velocity_target
from ..tokenizer import FlowMo
from .mode_matching import Draws, PerceptualDistance, encode
from .mode_seeking import ChainDraws, sample_chain


class DistillationLoss(NamedTuple):
    """Scalars; ``total`` is what is minimised. pixel: mean squared error of the samples, in [-1, 1]; sample: their mean
    d_perc; flow: as in Stage 1A, None where it has no weight."""

    total: Tensor
    pixel: Tensor
    sample: Tensor
    flow: Tensor | None = None


def distillation_loss(
    model: FlowMo,
    image: Tensor,
    chain: ChainDraws,
    perceptual: PerceptualDistance | None,
    pixel_weight: float,
    sample_weight: float,
    teacher: FlowMo | None = None,
    recompute: bool = True,
    draws: Draws | None = None,
    flow_weight: float = 0.0,
) -> DistillationLoss:
    """Distance of the student's samples along ``chain`` from the images, B 3 H W in [-1, 1], that it gets them for.

    teacher: the samples are compared with its own instead, from the same noise and code, painted by its stored sampler,
    guidance included. A weight of 0 asks for no d_perc. draws: of the flow term, which keeps the decoder a velocity
    model at other noise levels; with a ``flow_weight`` of 0 there is none, nor its pass.
    """
    code = encode(model, image).code
    seen = code[: len(chain.noise)]
    reference = image[: len(chain.noise)] if teacher is None else teacher_sample(teacher, seen, chain.noise)
    painted = sample_chain(model, seen, chain, recompute)
    pixel = F.mse_loss(painted, reference)
    total, sample, flow = pixel_weight * pixel, pixel.new_zeros(()), None
    if perceptual is not None and sample_weight:
        sample = perceptual(painted, reference).mean()
        total = total + sample_weight * sample
    if draws is not None and flow_weight:
        x_t = interpolate(image, draws.noise, draws.t)
        velocity = model.velocity(x_t, code, draws.t, draws.keep).float()
        flow = F.mse_loss(velocity, velocity_target(image, draws.noise))
        total = total + flow_weight * flow
    return DistillationLoss(total, pixel, sample, flow)


@torch.no_grad()
def teacher_sample(teacher: FlowMo, code: Tensor, noise: Tensor) -> Tensor:
    """What the teacher paints of a code S N K from noise S 3 H W by its stored sampler: clipped, as ``detokenize``."""
    return teacher.sample(code, noise).clamp(-1, 1)
