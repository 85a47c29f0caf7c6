"""Stage 1B, mode-seeking post-training: the decoder alone, on its own samples (Section 3.3, Eq. 10-12; A.2; D1-D6)."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import ClassVar, Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from ..arch import Condition
from ..errors import require
from ..flow import image_estimate, integrate, interpolate, random_grid, shifted_grid, velocity_target
from ..perceptual.distances import DistanceName
from ..quantize import Average
from ..tokenizer import FlowMo
from .base import ImageBatch, LossParts, PerceptualDistance, QuantizerWeights, Stage, StageConfig
from .curriculum import NoiseLevelConfig, code_dropout, noise_levels
from .mode_matching import WHOLE, Draws, Window, bit_share, draw, draw_window, encode, require_dropout
from .rates import RateConfig, kept_bits


@dataclass(frozen=True)
class SampleDistanceConfig:
    """How far samples are from what they are compared with, in Stage 1B and in distillation.

    The network is not the published one, whose weights not everyone has (D1, D2).
    """

    weight: float = 0.01  # of d_perc of the samples; lambda_sample
    rho: float | None = None  # of the shifted grid; None is that which is stored with the model
    network: DistanceName = "efficientnet_lite0"  # d_perc, see ``perceptual.load_distance``
    network_side: int = 224  # pixels that a classifier sees of an image
    lpips_weight: float = 0.0  # of LPIPS (VGG), added to the network's distance
    share: float = 1.0  # share of a batch that gets a chain
    crop: int | None = None  # side of the part of each sample that d_perc sees, at a random place (O6)
    recompute: bool = True  # each step again in the backward pass: memory of one, a fourth slower
    patience: int = 2  # validations in a row that show reward hacking before the run stops; 0 never stops

    def __post_init__(self) -> None:
        require(0 <= self.weight < math.inf, f"sample.weight must be at least 0, got {self.weight}")
        require(
            self.rho is None or self.rho > 0,
            f"sample.rho must be positive (inf is one step from t = 1), got {self.rho}",
        )
        require(self.network_side >= 32, f"sample.network_side must be at least 32, got {self.network_side}")
        require(0 <= self.lpips_weight < math.inf, f"sample.lpips_weight must be at least 0, got {self.lpips_weight}")
        require(0 < self.share <= 1, f"sample.share must be above 0 and at most 1, got {self.share}")
        require(self.crop is None or self.crop >= 16, f"sample.crop must be at least 16, got {self.crop}")
        require(self.patience >= 0, f"sample.patience must be at least 0, got {self.patience}")


@dataclass(frozen=True)
class SampleLossConfig(SampleDistanceConfig):
    """L_sample of Stage 1B (Eq. 11-12, A.2), as published (D1, D2) but for the network."""

    mode: Literal["chain", "one_step"] = "chain"  # the whole sample, or the flow term's image estimate (Table 7)
    num_steps: int = 8  # n, of the chain
    grid: Literal["random", "shifted"] = "random"  # gaps for each image by itself, or the sampler's for all

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.num_steps >= 1, f"sample.num_steps must be at least 1, got {self.num_steps}")


@dataclass(frozen=True)
class ModeSeekingConfig(StageConfig):
    """What Stage 1B can be told. The defaults are as published but for the network."""

    decoder_only: ClassVar[bool] = True  # the encoder is frozen

    stage: Literal["mode_seeking"] = "mode_seeking"  # its name
    losses: QuantizerWeights = field(default_factory=QuantizerWeights)  # without gradient: the encoder is frozen (D2)
    sample: SampleLossConfig = field(default_factory=SampleLossConfig)  # L_sample
    noise_levels: NoiseLevelConfig = field(default_factory=NoiseLevelConfig)  # p(t) of the flow term
    code_dropout: float = 0.1  # share of the codes that the flow term drops, for guidance (C3)
    entropy_over: Literal["micro_batch", "processes"] = "micro_batch"  # images that share a codebook entropy (A7)
    rates: RateConfig = field(default_factory=RateConfig)  # bits a token that images keep, for any rate (O12)

    def __post_init__(self) -> None:
        require_dropout(self.code_dropout)

    @property
    def chain_steps(self) -> float:
        s = self.sample
        return s.share * s.num_steps if s.mode == "chain" and s.weight else 0.0

    @property
    def patience(self) -> int | None:
        return self.sample.patience


class ModeSeekingLoss(NamedTuple):
    """The terms of Eq. 11-12, scalars.

    The terms of the quantizer have no gradient, as the encoder is frozen, and stay in the sum as published (D2).
    """

    total: Tensor  # what is minimised (Eq. 12)
    flow: Tensor  # L_flow
    sample: Tensor  # L_sample, the mean d_perc of the samples (Eq. 11)
    sample_entropy: Tensor  # mean entropy of a sample's code
    codebook_entropy: Tensor  # entropy of the mean code
    commitment: Tensor  # L_commit
    bit_share: Tensor | None = None  # see ``mode_matching.bit_share``


class ChainDraws(NamedTuple):
    """Where chains start and what noise levels they visit. S is how many images of a batch get one, the first ones."""

    noise: Tensor  # S 3 H W
    grid: Tensor  # S (n + 1), from 1 to 0, or (n + 1,) for all


def draw_chain(
    image: Tensor, num_steps: int, generator: torch.Generator, share: float = 1.0, grid: Tensor | None = None
) -> ChainDraws:
    """Return the noise and the noise levels of the chains of a share of the batch.

    The noise is fresh, where Eq. 11 has the image. The levels have random gaps, for each image by itself (D1).
    grid: fixed levels (n + 1,) instead.
    """
    count, device = max(1, round(share * image.shape[0])), generator.device
    noise = torch.randn((count, *image.shape[1:]), generator=generator, device=device)
    if grid is None:
        uniforms = 1 - torch.rand((count, num_steps + 1), generator=generator, device=device)  # never exactly 0
        grid = random_grid(uniforms)
    return ChainDraws(noise.to(image.device), grid.to(image.device))


def sample_chain(model: FlowMo, code: Tensor | Condition, draws: ChainDraws, recompute: bool = True) -> Tensor:
    """Return the n-step sample of Eq. 10, S 3 H W, with gradients through every step.

    It is unguided and not clipped. Its state has the noise's precision, whatever the network computes in (D2).

    code: S N K, or a condition of as many images.
    recompute: each step keeps its state alone and computes the rest again in the backward pass (D6).
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
    config: ModeSeekingConfig,
    perceptual: PerceptualDistance | None,
    average: Average | None = None,
    window: Window = WHOLE,
) -> ModeSeekingLoss:
    """Return Eq. 12 on one batch, image B 3 H W in [-1, 1]: L_flow + lambda_sample L_sample.

    draws: of the flow term, with code dropout (C3).
    chain: of L_sample, whose codes are never dropped. None compares in its place the one-step image estimate of the
    flow term, of a ``sample.share`` of the batch (Table 7, F7). With a ``sample.weight`` of 0 there is no L_sample.
    average: see ``FlowMo.quantize``.
    window: the part of each image that d_perc sees.
    """
    quantized = encode(model, image, average)
    x_t = interpolate(image, draws.noise, draws.t)
    velocity = model.velocity(x_t, draws.condition(quantized.code), draws.t).float()
    flow = F.mse_loss(velocity, velocity_target(image, draws.noise))
    distance = flow.new_zeros(())
    if perceptual is not None and config.sample.weight:
        if chain is None:
            sample = image_estimate(x_t, velocity, draws.t)[: max(1, round(config.sample.share * image.shape[0]))]
        else:
            kept = draws.kept(quantized.code, len(chain.noise))
            sample = sample_chain(model, kept, chain, config.sample.recompute)
        distance = perceptual(window.of(sample), window.of(image[: len(sample)])).mean()
    total = flow + config.sample.weight * distance + config.losses.quantizer_loss(quantized.losses)
    return ModeSeekingLoss(total, flow, distance, *quantized.losses, bit_share(model, quantized))


class ModeSeeking(Stage):
    """Stage 1B on one micro-batch: its randomness, and Eq. 12."""

    model: FlowMo

    def __init__(self, model: FlowMo, config: ModeSeekingConfig, parts: LossParts | None = None) -> None:
        super().__init__()
        self.model, self.config, self.parts = model, config, parts or LossParts()

    def forward(self, batch: ImageBatch, generator: torch.Generator, images_seen: int) -> ModeSeekingLoss:
        """Return the loss of ``batch``, with noise levels and code dropout as after ``images_seen`` images."""
        config, image = self.config, batch.images
        s, dropout = config.sample, code_dropout(config, images_seen)
        draws = draw(image, noise_levels(config, images_seen), dropout, generator)
        draws = draws._replace(bits=kept_bits(config.rates, image, self.model.config.bits_per_token, generator))
        chain = None
        if s.mode == "chain" and s.weight:
            chain = draw_chain(image, s.num_steps, generator, s.share, self.fixed_grid())
        return mode_seeking_loss(
            self.model,
            image,
            draws,
            chain,
            config,
            perceptual=self.parts.perceptual,
            average=self.parts.average if config.entropy_over == "processes" else None,
            window=draw_window(image, s.crop, generator),
        )

    def fixed_grid(self) -> Tensor | None:
        """Return the noise levels of every chain, (n + 1,); None where each image has its own."""
        s = self.config.sample
        if s.grid == "random":
            return None
        return shifted_grid(s.num_steps, self.model.config.sampler.rho if s.rho is None else s.rho)
