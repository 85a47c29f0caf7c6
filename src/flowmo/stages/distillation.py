"""Few-step decoding, not in the paper (O11).

On a frozen code, the decoder learns to sample in one or a few unguided steps what it takes many guided ones for.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import ClassVar, Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from ..arch import Condition
from ..errors import require
from ..flow import interpolate, shifted_grid, velocity_target
from ..tokenizer import FlowMo
from .base import ImageBatch, LossParts, PerceptualDistance, Stage, StageConfig
from .curriculum import NoiseLevelConfig, code_dropout, noise_levels
from .mode_matching import WHOLE, Draws, Window, draw, draw_window, encode, require_dropout
from .mode_seeking import ChainDraws, SampleDistanceConfig, draw_chain, sample_chain
from .rates import RateConfig, kept_bits


@dataclass(frozen=True)
class DistillConfig:
    """What samples are compared with, and in how many steps they are made."""

    steps: tuple[int, ...] = (1,)  # numbers of steps that one set of weights serves, in turn; the first is stored
    target: Literal["teacher", "image"] = "teacher"  # the teacher's sample of the same noise and code, or the image
    teacher_steps: int | None = None  # of the teacher's sampler; None is what is stored with it
    teacher_rho: float | None = None  # likewise
    teacher_guidance: float | None = None  # likewise
    teacher_solver: Literal["euler", "heun"] | None = None  # likewise
    pixel_weight: float = 1.0  # of the mean squared error of the samples
    flow_weight: float = 0.0  # of the flow term of Stage 1A

    def __post_init__(self) -> None:
        require(
            bool(self.steps) and min(self.steps) >= 1 and len(set(self.steps)) == len(self.steps),
            f"distill.steps must be different numbers of at least 1, got {list(self.steps)}",
        )
        for name in ("pixel_weight", "flow_weight"):
            value = getattr(self, name)
            require(0 <= value < math.inf, f"distill.{name} must be at least 0, got {value}")
        given = [
            n
            for n in ("teacher_steps", "teacher_rho", "teacher_guidance", "teacher_solver")
            if getattr(self, n) is not None
        ]
        require(
            self.target == "teacher" or not given,
            f"there is no teacher with distill.target=image; leave out distill.{', distill.'.join(given)}",
        )

    def steps_at(self, update: int) -> int:
        """Return the number of steps of an update's chains; updates count from 0."""
        return self.steps[update % len(self.steps)]


@dataclass(frozen=True)
class DistillationConfig(StageConfig):
    """What distillation can be told."""

    decoder_only: ClassVar[bool] = True  # the code is frozen

    stage: Literal["distillation"] = "distillation"  # its name
    sample: SampleDistanceConfig = field(default_factory=SampleDistanceConfig)  # d_perc of the samples
    distill: DistillConfig = field(default_factory=DistillConfig)  # what they are compared with
    noise_levels: NoiseLevelConfig = field(default_factory=NoiseLevelConfig)  # p(t) of the flow term
    code_dropout: float = 0.1  # share of the codes that the flow term drops
    rates: RateConfig = field(default_factory=RateConfig)  # bits a token that images keep, for any rate (O12)

    def __post_init__(self) -> None:
        require_dropout(self.code_dropout)
        require(
            self.distill.pixel_weight + self.sample.weight > 0,
            "nothing to minimise: distill.pixel_weight and sample.weight are both 0",
        )

    @property
    def chain_steps(self) -> float:
        return self.sample.share * (sum(self.distill.steps) / len(self.distill.steps))

    @property
    def has_flow_term(self) -> bool:
        return self.distill.flow_weight > 0

    @property
    def patience(self) -> int | None:
        return self.sample.patience


class DistillationLoss(NamedTuple):
    """The terms of the loss of distillation, scalars."""

    total: Tensor  # what is minimised
    pixel: Tensor  # mean squared error of the samples, which lie in [-1, 1]
    sample: Tensor  # mean d_perc of the samples
    flow: Tensor | None = None  # L_flow as in Stage 1A, None where it has no weight


def distillation_loss(
    model: FlowMo,
    image: Tensor,
    chain: ChainDraws,
    draws: Draws | None,
    config: DistillationConfig,
    perceptual: PerceptualDistance | None,
    teacher: FlowMo | None = None,
    bits: Tensor | None = None,
    window: Window = WHOLE,
) -> DistillationLoss:
    """Return the distance of the student's samples along ``chain`` from the images, B 3 H W in [-1, 1].

    draws: of the flow term, which keeps the decoder a velocity model at other noise levels; None leaves it out.
    perceptual: d_perc; a ``sample.weight`` of 0 does not ask it.
    teacher: its samples from the same noise and code, guidance included, take the place of the images.
    bits: (B,), how many bits of a token student and teacher are given (O12), or None for all.
    window: the part of each image that d_perc sees.
    """
    code = encode(model, image).code
    count = len(chain.noise)
    chained = code[:count] if bits is None else Condition(code[:count]).keep_bits(bits[:count])
    reference = image[:count] if teacher is None else teacher_sample(teacher, chained, chain.noise)
    num_steps = chain.grid.shape[-1] - 1
    samples = sample_chain(model, chained, chain, config.sample.recompute and num_steps > 1)  # one is not worth it
    pixel = F.mse_loss(samples, reference)
    total, sample, flow = config.distill.pixel_weight * pixel, pixel.new_zeros(()), None
    if perceptual is not None and config.sample.weight:
        sample = perceptual(window.of(samples), window.of(reference)).mean()
        total = total + config.sample.weight * sample
    if draws is not None and config.distill.flow_weight:
        x_t = interpolate(image, draws.noise, draws.t)
        velocity = model.velocity(x_t, draws.condition(code), draws.t).float()
        flow = F.mse_loss(velocity, velocity_target(image, draws.noise))
        total = total + config.distill.flow_weight * flow
    return DistillationLoss(total, pixel, sample, flow)


@torch.no_grad()
def teacher_sample(teacher: FlowMo, code: Tensor | Condition, noise: Tensor) -> Tensor:
    """Return the images that the teacher's stored sampler makes of a code S N K from noise S 3 H W.

    They are clipped, as those of ``detokenize``.
    """
    return teacher.sample(code, noise).clamp(-1, 1)


class Distillation(Stage):
    """Distillation on one micro-batch. All micro-batches of an update take the same number of steps."""

    model: FlowMo

    def __init__(self, model: FlowMo, config: DistillationConfig, parts: LossParts | None = None) -> None:
        super().__init__()
        self.model, self.config, self.parts = model, config, parts or LossParts()

    def forward(self, batch: ImageBatch, generator: torch.Generator, images_seen: int) -> DistillationLoss:
        """Return the loss of ``batch``, with the number of steps of the update that follows ``images_seen``."""
        config, image, s = self.config, batch.images, self.config.sample
        num_steps = config.distill.steps_at(images_seen // self.parts.batch_size)
        grid = shifted_grid(num_steps, self.model.config.sampler.rho)
        chain, draws = draw_chain(image, num_steps, generator, s.share, grid), None
        if config.distill.flow_weight:
            draws = draw(image, noise_levels(config, images_seen), code_dropout(config, images_seen), generator)
        bits = kept_bits(config.rates, image, self.model.config.bits_per_token, generator)
        draws = draws._replace(bits=bits) if draws else None
        return distillation_loss(
            self.model,
            image,
            chain,
            draws,
            config,
            perceptual=self.parts.perceptual,
            teacher=self.parts.teacher,
            bits=bits,
            window=draw_window(image, s.crop, generator),
        )
