"""How a model is trained: one frozen dataclass, measured in images (Section 4.1, Table 6; A2, A12, A16)."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal

from ..perceptual.distances import DistanceName
from ..stages import LossWeights
from .run_config import RunConfig, require


@dataclass(frozen=True)
class NoiseLevelConfig:
    """p(t) (C2), and the curriculum of short runs: for the first ``curriculum_images`` a share ``curriculum_mass`` of
    the samples sits at t = 1 and no code is dropped; over the next ``anneal_images`` the share falls linearly to
    ``pure_noise_mass`` and code dropout sets in. The paper has no curriculum."""

    uniform_mass: float = 0.1
    location: float = 0.0
    scale: float = 1.0
    pure_noise_mass: float = 0.0
    curriculum_mass: float = 0.7
    curriculum_images: int = 0
    anneal_images: int = 0


@dataclass(frozen=True)
class SampleLossConfig:
    """L_sample of Stage 1B (Eq. 11-12, A.2), as published (D1, D2) but for the network, whose weights not everyone has.

    weight: lambda_sample. mode: "chain", the sample of ``num_steps`` steps, or "one_step", the flow term's image
    estimate (Table 7). grid: of the chain, "random" gaps for each image, or "shifted", the sampler's for all, by
    ``rho`` or, if null, that which is stored with the model. network: see ``perceptual.load_distance``; network_side:
    pixels that a classifier sees of an image. share: of a batch that gets a chain. recompute: each step of a chain
    again in the backward pass, so that its length takes no memory; a fourth faster without. patience: checks in a row
    that show reward hacking before the run stops (``early_stopping.py``); 0 never stops.
    """

    weight: float = 0.01
    mode: Literal["chain", "one_step"] = "chain"
    num_steps: int = 8
    grid: Literal["random", "shifted"] = "random"
    rho: float | None = None
    network: DistanceName = "efficientnet_lite0"
    network_side: int = 224
    share: float = 1.0
    recompute: bool = True
    patience: int = 2

    def __post_init__(self) -> None:
        require(0 <= self.weight < math.inf, f"sample.weight must be at least 0, got {self.weight}")
        require(self.num_steps >= 1, f"sample.num_steps must be at least 1, got {self.num_steps}")
        require(
            self.rho is None or self.rho > 0,
            f"sample.rho must be positive (inf is one step from t = 1), got {self.rho}",
        )
        require(self.network_side >= 32, f"sample.network_side must be at least 32, got {self.network_side}")
        require(0 < self.share <= 1, f"sample.share must be above 0 and at most 1, got {self.share}")
        require(self.patience >= 0, f"sample.patience must be at least 0, got {self.patience}")


@dataclass(frozen=True)
class DistillConfig:
    """Few-step decoding (O11). What it shares with Stage 1B is set there: ``sample.weight`` of d_perc and its network,
    ``sample.rho``, ``share``, ``recompute``, ``patience``.

    steps: numbers of steps that one set of weights serves; each batch takes one of them in turn, on the shifted grid.
    The first becomes the model's sampler, without guidance. target: what samples are compared with, "teacher", its
    sample from the same noise and code, or "image", the picture itself. teacher_*: the teacher's sampler, where not the
    one stored with it. pixel_weight: of the mean squared error. flow_weight: of the flow term of Stage 1A.
    """

    steps: tuple[int, ...] = (1,)
    target: Literal["teacher", "image"] = "teacher"
    teacher_steps: int | None = None
    teacher_rho: float | None = None
    teacher_guidance: float | None = None
    pixel_weight: float = 1.0
    flow_weight: float = 0.0

    def __post_init__(self) -> None:
        require(
            bool(self.steps) and min(self.steps) >= 1 and len(set(self.steps)) == len(self.steps),
            f"distill.steps must be different numbers of at least 1, got {list(self.steps)}",
        )
        for name in ("pixel_weight", "flow_weight"):
            value = getattr(self, name)
            require(0 <= value < math.inf, f"distill.{name} must be at least 0, got {value}")
        given = [n for n in ("teacher_steps", "teacher_rho", "teacher_guidance") if getattr(self, n) is not None]
        require(
            self.target == "teacher" or not given,
            f"there is no teacher with distill.target=image; leave out distill.{', distill.'.join(given)}",
        )

    def steps_at(self, update: int) -> int:
        """Of the chains of an update, counted from 0."""
        return self.steps[update % len(self.steps)]


@dataclass(frozen=True)
class TrainConfig(RunConfig):
    """One stage of training a tokenizer. The defaults suit a short run on one device; runs/ holds the commands of the
    packaged models, ``training.recipes`` the published settings.

    stage: "mode_matching" (Stage 1A), "mode_seeking" (Stage 1B, with ``sample``), "distillation" (O11, with ``sample``
    and ``distill``), or "autoencode", a regression of the image from its code (F5). A clean prediction at low noise
    gives rare gradients of enormous size: then set ``gradient_clip``. perceptual_share: see ``mode_matching_loss``.
    freeze_encoder_after: so many images the encoder trains, then the optimizer is built anew without it (A14).
    entropy_over: the images that share a codebook entropy, those of one micro-batch as published or the micro-batches
    that all processes see at once (A7). crop_size: side of the random crops, at the scale that the model's
    ``image_size`` gives; a smaller one than that is cheaper (C1 has them equal). workers: processes that decode images.
    """

    stage: Literal["mode_matching", "autoencode", "mode_seeking", "distillation"] = "mode_matching"
    losses: LossWeights = field(default_factory=LossWeights)
    perceptual_network: Literal["vgg", "alex"] = "vgg"
    perceptual_share: float = 1.0
    sample: SampleLossConfig = field(default_factory=SampleLossConfig)
    distill: DistillConfig = field(default_factory=DistillConfig)
    noise_levels: NoiseLevelConfig = field(default_factory=NoiseLevelConfig)
    code_dropout: float = 0.1
    freeze_encoder_after: int | None = None
    entropy_over: Literal["micro_batch", "processes"] = "micro_batch"
    crop_size: int | None = None
    flip: bool = False
    workers: int = 2

    def __post_init__(self) -> None:
        super().__post_init__()
        levels, losses = self.noise_levels, self.losses
        require(self.crop_size is None or self.crop_size >= 1, f"crop_size must be at least 1, got {self.crop_size}")
        require(self.workers >= 0, f"workers must be at least 0, got {self.workers}")
        require(
            0 < self.perceptual_share <= 1,
            f"perceptual_share must be above 0 and at most 1, got {self.perceptual_share}",
        )
        require(0 <= self.code_dropout < 1, f"code_dropout must be at least 0 and below 1, got {self.code_dropout}")
        freeze = self.freeze_encoder_after
        require(freeze is None or freeze >= 0, f"freeze_encoder_after must be at least 0, got {freeze}")
        for name in ("uniform_mass", "pure_noise_mass", "curriculum_mass"):
            value = getattr(levels, name)
            require(0 <= value <= 1, f"noise_levels.{name} must be between 0 and 1, got {value}")
        for name in ("curriculum_images", "anneal_images"):
            value = getattr(levels, name)
            require(value >= 0, f"noise_levels.{name} must be at least 0, got {value}")
        for name in ("perceptual", "entropy", "commitment"):
            value = getattr(losses, name)
            require(0 <= value < math.inf, f"losses.{name} must be at least 0, got {value}")
        if self.on_samples:
            name = "Stage 1B" if self.stage == "mode_seeking" else "distillation"
            require(freeze == 0, f"{name} trains the decoder alone: freeze_encoder_after must be 0")
            require(losses.perceptual == 0, f"{name} has no one-step LPIPS (D2): losses.perceptual must be 0")
        if self.stage == "distillation":
            usual, s = SampleLossConfig(), self.sample
            require(
                (s.mode, s.num_steps, s.grid) == (usual.mode, usual.num_steps, usual.grid),
                "distillation has chains of its own: set distill.steps; leave out sample.mode, num_steps and grid",
            )
            require(
                self.distill.pixel_weight + s.weight > 0,
                "nothing to minimise: distill.pixel_weight and sample.weight are both 0",
            )

    @property
    def on_samples(self) -> bool:
        """Whether the decoder alone trains, on what it paints, and checks may end the run."""
        return self.stage in ("mode_seeking", "distillation")
