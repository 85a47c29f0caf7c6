"""Stage 1A, mode-matching: encoder and decoder end to end (Section 3.2, Eq. 4-9)."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from ..arch import Condition
from ..errors import require
from ..flow import ThickTailedLogitNormal, image_estimate, interpolate, velocity_target
from ..quantize import Average, Quantized, QuantizerLosses
from ..tokenizer import FlowMo
from .base import ImageBatch, LossParts, PerceptualDistance, QuantizerWeights, Stage, StageConfig
from .curriculum import NoiseLevelConfig, code_dropout, noise_levels
from .rates import RateConfig, kept_bits


@dataclass(frozen=True)
class LossWeights:
    """The lambdas of Eq. 9, as the released weights were trained (A1, A11)."""

    perceptual: float = 0.1  # of L_perc; 0 skips d_perc
    entropy: float = 0.0025  # of L_ent
    commitment: float = 0.000625  # of L_commit
    flow: float = 1.0  # of L_flow, against which a transform start weighs L_perc (O12)

    def __post_init__(self) -> None:
        require(0 <= self.perceptual < math.inf, f"losses.perceptual must be at least 0, got {self.perceptual}")
        require(0 <= self.flow < math.inf, f"losses.flow must be at least 0, got {self.flow}")
        QuantizerWeights(self.entropy, self.commitment)  # checks them

    def quantizer_loss(self, losses: QuantizerLosses) -> Tensor:
        """Return the weighted sum of the quantizer's terms, a scalar."""
        return QuantizerWeights(self.entropy, self.commitment).quantizer_loss(losses)


@dataclass(frozen=True)
class EndToEndConfig(StageConfig):
    """What the stages that train the encoder too can be told, Stage 1A and the regression of F5."""

    losses: LossWeights = field(default_factory=LossWeights)  # the lambdas of Eq. 9
    perceptual_network: Literal["vgg", "alex"] = "vgg"  # whose features LPIPS compares
    perceptual_share: float = 1.0  # share of a batch that d_perc sees, see :func:`mode_matching_loss`
    perceptual_crop: int | None = None  # side of the part of each image that d_perc sees, at a random place (O6)
    perceptual_scales: tuple[float, ...] = (1.0,)  # a part of one of these times that side, brought to it (O6)
    freeze_encoder_after: int | None = None  # images; then the optimizer is built anew without it (A14)
    entropy_over: Literal["micro_batch", "processes"] = "micro_batch"  # images that share a codebook entropy (A7)

    def __post_init__(self) -> None:
        share, freeze = self.perceptual_share, self.freeze_encoder_after
        require(0 < share <= 1, f"perceptual_share must be above 0 and at most 1, got {share}")
        require(freeze is None or freeze >= 0, f"freeze_encoder_after must be at least 0, got {freeze}")
        crop = self.perceptual_crop
        require(crop is None or crop >= 16, f"perceptual_crop must be at least 16, got {crop}")
        scales = self.perceptual_scales
        fit = len(scales) > 0 and all(0.25 <= scale <= 4 for scale in scales)
        require(fit, f"perceptual_scales must be numbers between 0.25 and 4, got {list(scales)}")
        require(crop is not None or scales == (1.0,), "perceptual_scales are of perceptual_crop: set that too")

    @property
    def encoder_images(self) -> int | None:
        return self.freeze_encoder_after

    @property
    def lpips_network(self) -> Literal["vgg", "alex"] | None:
        return self.perceptual_network if self.losses.perceptual else None


@dataclass(frozen=True)
class ModeMatchingConfig(EndToEndConfig):
    """What Stage 1A can be told. The defaults are as published."""

    stage: Literal["mode_matching"] = "mode_matching"  # its name
    noise_levels: NoiseLevelConfig = field(default_factory=NoiseLevelConfig)  # p(t)
    code_dropout: float = 0.1  # share of the codes that are dropped, for guidance (C3)
    rates: RateConfig = field(default_factory=RateConfig)  # bits a token that images keep, for any rate (O12)
    noise_sync: float = 0.0  # share of the images whose latent is noised too, 0.1 in DiTo (F6)

    def __post_init__(self) -> None:
        super().__post_init__()
        require(0 <= self.noise_sync <= 1, f"noise_sync must be between 0 and 1, got {self.noise_sync}")
        require_dropout(self.code_dropout)


def require_dropout(share: float) -> None:
    """Raise ConfigError for a share of dropped codes that leaves nothing to learn from."""
    require(0 <= share < 1, f"code_dropout must be at least 0 and below 1, got {share}")


class NoiseSync(NamedTuple):
    """Noise on the latent, DiTo's noise synchronization (F6)."""

    noise: Tensor  # B N K
    t: Tensor  # its levels, (B,), 0 where the latent stays as it is


class Draws(NamedTuple):
    """The randomness of one step."""

    noise: Tensor  # z, B 3 H W
    t: Tensor  # noise levels, (B,)
    keep: Tensor  # (B,) bool, False where the code is dropped (C3)
    bits: Tensor | None = None  # how many bits of a token are kept, (B,) (O12); None for all
    sync: NoiseSync | None = None  # noise on the latent, or None

    def condition(self, code: Tensor) -> Condition:
        """Return the condition: what of a code B N K the decoder is given."""
        if self.sync is not None:
            code = interpolate(code, self.sync.noise, self.sync.t)
        kept = Condition(code).keep_images(self.keep)
        return kept if self.bits is None else kept.keep_bits(self.bits)

    def kept(self, code: Tensor, count: int) -> Tensor | Condition:
        """Return the kept bits of the codes of the first ``count`` images, none of them dropped: for samples."""
        return code[:count] if self.bits is None else Condition(code[:count]).keep_bits(self.bits[:count])


class Window(NamedTuple):
    """The part of each image that d_perc sees."""

    rows: slice = slice(None)  # of pixels
    columns: slice = slice(None)  # of pixels
    side: int | None = None  # pixels that the part is brought to; None as it is

    def of(self, images: Tensor) -> Tensor:
        """Return this part of images B 3 H W, by bilinear interpolation that does not alias where it is scaled."""
        part = images[..., self.rows, self.columns]
        if self.side is None or part.shape[-2:] == (self.side, self.side):
            return part
        return F.interpolate(part.float(), size=(self.side, self.side), mode="bilinear", antialias=True)


WHOLE = Window()


class ModeMatchingLoss(NamedTuple):
    """The terms of Eq. 5-9, scalars."""

    total: Tensor  # what is minimised (Eq. 9)
    flow: Tensor  # L_flow (Eq. 5)
    perceptual: Tensor  # L_perc (Eq. 6)
    sample_entropy: Tensor  # mean entropy of a sample's code (Eq. 7)
    codebook_entropy: Tensor  # entropy of the mean code (Eq. 7)
    commitment: Tensor  # L_commit (Eq. 8)
    bit_share: Tensor | None = None  # see :func:`bit_share`


def draw(image: Tensor, noise_levels: ThickTailedLogitNormal, code_dropout: float, generator: torch.Generator) -> Draws:
    """Return noise, noise level and code dropout for a batch of images, all from ``generator`` on its device."""
    batch, device = image.shape[0], generator.device
    return Draws(
        torch.randn(image.shape, generator=generator, device=device).to(image.device),
        noise_levels.sample(batch, generator).to(image.device),
        (torch.rand(batch, generator=generator, device=device) >= code_dropout).to(image.device),
    )


def synchronize(draws: Draws, share: float, latent_shape: tuple[int, int], generator: torch.Generator) -> Draws:
    """Return the draws with noise on the latents of a ``share`` of the images (F6).

    Their latent's level is t_z ~ U(0, 1), on the straight path of Eq. 4, and the image's is uniform in [t_z, 1]: the
    decoder is never asked for more than the latent still holds. latent_shape: N K.
    """
    batch, device = len(draws.t), generator.device
    uniforms = torch.rand(3, batch, generator=generator, device=device).to(draws.t.device)
    noise = torch.randn(batch, *latent_shape, generator=generator, device=device).to(draws.t.device)
    chosen = uniforms[0] < share
    t_z = torch.where(chosen, uniforms[1], 0.0)
    t = torch.where(chosen, t_z + (1 - t_z) * uniforms[2], draws.t)
    return draws._replace(t=t, sync=NoiseSync(noise, t_z))


def encode(model: FlowMo, image: Tensor, average: Average | None = None) -> Quantized:
    """Return the code of a batch with its loss terms.

    Where the encoder is frozen, which is where none of its weights wants a gradient, none is computed, and no memory is
    taken for one (A14).
    """
    trains = any(p.requires_grad for p in model.encoder.parameters())
    with torch.set_grad_enabled(trains and torch.is_grad_enabled()):
        return model.quantize(model.encode(image), average)


def bit_share(model: FlowMo, quantized: Quantized) -> Tensor | None:
    """Return the share of the batch in which each bit of the code is set, N K, to see whether bits are used.

    None is returned where the code has no bits of its own.
    """
    return (quantized.code.detach() > 0).float().mean(0) if model.quantizer.has_bits else None


def perceptual_loss(
    perceptual: PerceptualDistance, estimate: Tensor, image: Tensor, share: float, window: Window = WHOLE
) -> Tensor:
    """Return the mean d_perc over a share of the batch; a mean needs no other weight.

    Rows are independent, so the first ones will do. window: the part of each image that is compared.
    """
    count = max(1, round(share * image.shape[0]))
    return perceptual(window.of(estimate[:count]), window.of(image[:count])).mean()


def draw_window(
    image: Tensor, side: int | None, generator: torch.Generator, scales: tuple[float, ...] = (1.0,)
) -> Window:
    """Return a random square of ``side`` pixels inside the images, B 3 H W; all of them where they are smaller.

    scales: the square is one of these times larger, and is brought to ``side`` pixels. Strides of the network that
    measures then fall on other places of the image, and no fine pattern suits them all.
    """
    if side is None:
        return WHOLE
    drawn, shown = side, None
    if scales != (1.0,):
        shown = min(side, *image.shape[-2:])
        scale = scales[int(torch.randint(len(scales), (), generator=generator, device=generator.device))]
        drawn = min(round(scale * side), *image.shape[-2:])
    places = torch.rand(2, generator=generator, device=generator.device).tolist()
    starts = [int(place * (max(0, length - drawn) + 1)) for place, length in zip(places, image.shape[-2:], strict=True)]
    return Window(slice(starts[0], starts[0] + drawn), slice(starts[1], starts[1] + drawn), shown)


def mode_matching_loss(
    model: FlowMo,
    image: Tensor,
    draws: Draws,
    weights: LossWeights,
    perceptual: PerceptualDistance | None = None,
    perceptual_share: float = 1.0,
    average: Average | None = None,
    window: Window = WHOLE,
) -> ModeMatchingLoss:
    """Return Eq. 9 on one batch, image B 3 H W in [-1, 1].

    perceptual_share: the share of the batch that d_perc sees, nearly the same objective at part of the cost.
    window: the part of each image that it sees, likewise.
    average: see ``FlowMo.quantize``.
    """
    quantized = encode(model, image, average)
    x_t = interpolate(image, draws.noise, draws.t)
    velocity = model.velocity(x_t, draws.condition(quantized.code), draws.t).float()
    flow = F.mse_loss(velocity, velocity_target(image, draws.noise))  # a mean, not Eq. 5's sum (A3)
    distance = flow.new_zeros(())
    if perceptual is not None and weights.perceptual:
        estimate = image_estimate(x_t, velocity, draws.t)  # not clamped (A5)
        distance = perceptual_loss(perceptual, estimate, image, perceptual_share, window)
    total = weights.flow * flow + weights.perceptual * distance + weights.quantizer_loss(quantized.losses)
    return ModeMatchingLoss(total, flow, distance, *quantized.losses, bit_share(model, quantized))


class ModeMatching(Stage):
    """Stage 1A on one micro-batch: its randomness, and Eq. 9."""

    model: FlowMo

    def __init__(self, model: FlowMo, config: ModeMatchingConfig, parts: LossParts | None = None) -> None:
        super().__init__()
        self.model, self.config, self.parts = model, config, parts or LossParts()

    def forward(self, batch: ImageBatch, generator: torch.Generator, images_seen: int) -> ModeMatchingLoss:
        """Return the loss of ``batch``, with noise levels and code dropout as after ``images_seen`` images."""
        config, image = self.config, batch.images
        dropout = code_dropout(config, images_seen)
        draws = draw(image, noise_levels(config, images_seen), dropout, generator)
        draws = draws._replace(bits=kept_bits(config.rates, image, self.model.config.bits_per_token, generator))
        if config.noise_sync:
            c = self.model.config
            latent_shape = (c.tokens_of((image.shape[2], image.shape[3])), c.latent_dim)
            draws = synchronize(draws, config.noise_sync, latent_shape, generator)
        return mode_matching_loss(
            self.model,
            image,
            draws,
            config.losses,
            perceptual=self.parts.perceptual,
            perceptual_share=config.perceptual_share,
            average=self.parts.average if config.entropy_over == "processes" else None,
            window=draw_window(image, config.perceptual_crop, generator, config.perceptual_scales),
        )
