"""How a model is trained: one frozen dataclass, measured in images (Section 4.1, Table 6; A2, A12, A16)."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal

import torch

from ..errors import ConfigError
from ..stages import LossWeights


def fast_precision() -> Literal["bf16", "fp32"]:
    """bf16 (A17) where there is a GPU or the processor multiplies it; elsewhere products in bf16 take tens of times as
    long as in fp32."""
    has = getattr(torch.cpu, "get_capabilities", dict)()  # newer than the oldest PyTorch that works
    processor = any(has.get(name) for name in ("avx512_bf16", "amx_bf16"))
    return "bf16" if torch.cuda.is_available() or processor else "fp32"


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
class TrainConfig:
    """One stage of training. The defaults suit a short run on one device; runs/ holds the commands of the packaged
    models, ``training.recipes`` the published settings.

    stage: "mode_matching" (Stage 1A), or "autoencode", a regression of the image from its code (F5). images: length of
    the run, cool-down included. batch_size: images of one update, over all processes; each forward pass takes
    ``micro_batch`` of them in each process (all of its share by default). learning_rate rises over ``warmup_images``,
    stays, and falls linearly to 0 over the last ``cooldown_images``. gradient_clip: largest norm of the whole
    gradient, none as published (A12); a clean prediction at low noise gives rare gradients of enormous size.
    freeze_encoder_after: so many images the encoder trains, then the optimizer is built anew without it (A14).
    entropy_over: the images that share a codebook entropy, those of one micro-batch as published or the micro-batches
    that all processes see at once (A7). ema_horizon: averaging length as a share of the run; ``ema_decay`` fixes the
    decay a step instead (0.9999 as published, A16), and ``ema_every`` steps are averaged at once. perceptual_share: see
    ``mode_matching_loss``.

    How it runs: precision, of matrix products, see :func:`fast_precision`; strategy, several processes keep the whole
    model each (ddp) or a part (fsdp); recompute_blocks saves memory for time; compile, the blocks by torch.compile
    (for GPUs; on a CPU it gains nothing); workers decode images. A step whose loss or gradient is not finite changes
    nothing; ``most_skipped`` of them in a row end the run. Every ``check_images`` sample pictures and validation
    numbers are written, every ``checkpoint_minutes`` a checkpoint, of which ``keep`` are kept.
    """

    stage: Literal["mode_matching", "autoencode"] = "mode_matching"
    images: int = 1_000_000
    batch_size: int = 32
    micro_batch: int | None = None
    learning_rate: float = 1e-4
    betas: tuple[float, float] = (0.9, 0.95)
    warmup_images: int = 5_000
    cooldown_images: int = 250_000
    losses: LossWeights = field(default_factory=LossWeights)
    perceptual_network: Literal["vgg", "alex"] = "vgg"
    perceptual_share: float = 1.0
    noise_levels: NoiseLevelConfig = field(default_factory=NoiseLevelConfig)
    code_dropout: float = 0.1
    weight_normalization: bool = True
    gradient_clip: float | None = None
    freeze_encoder_after: int | None = None
    entropy_over: Literal["micro_batch", "processes"] = "micro_batch"
    ema_horizon: float = 0.04
    ema_decay: float | None = None
    ema_every: int = 1
    precision: Literal["bf16", "fp32"] = field(default_factory=fast_precision)
    flip: bool = False
    seed: int = 0
    strategy: Literal["ddp", "fsdp"] = "ddp"
    recompute_blocks: bool = False
    compile: bool = False
    workers: int = 2
    most_skipped: int = 10
    log_steps: int = 20
    check_images: int = 50_000
    checkpoint_minutes: float = 10.0
    keep: int = 2

    def __post_init__(self) -> None:
        levels, losses = self.noise_levels, self.losses
        for name in ("images", "batch_size", "ema_every", "most_skipped", "log_steps", "check_images", "keep"):
            _require(getattr(self, name) >= 1, f"{name} must be at least 1, got {getattr(self, name)}")
        for name in ("warmup_images", "cooldown_images", "checkpoint_minutes", "seed", "workers"):
            _require(getattr(self, name) >= 0, f"{name} must be at least 0, got {getattr(self, name)}")
        for name in ("perceptual_share", "ema_horizon"):
            _require(0 < getattr(self, name) <= 1, f"{name} must be above 0 and at most 1, got {getattr(self, name)}")
        _require(0 < self.learning_rate < math.inf, f"learning_rate must be positive, got {self.learning_rate}")
        _require(all(0 <= beta < 1 for beta in self.betas), f"betas must be at least 0 and below 1, got {self.betas}")
        _require(0 <= self.code_dropout < 1, f"code_dropout must be at least 0 and below 1, got {self.code_dropout}")
        decay, clip, freeze = self.ema_decay, self.gradient_clip, self.freeze_encoder_after
        _require(
            self.micro_batch is None or self.micro_batch >= 1, f"micro_batch must be at least 1, got {self.micro_batch}"
        )
        _require(freeze is None or freeze >= 0, f"freeze_encoder_after must be at least 0, got {freeze}")
        _require(decay is None or 0 <= decay < 1, f"ema_decay must be at least 0 and below 1, got {decay}")
        _require(clip is None or clip > 0, f"gradient_clip must be positive, got {clip}")
        for name in ("uniform_mass", "pure_noise_mass", "curriculum_mass"):
            value = getattr(levels, name)
            _require(0 <= value <= 1, f"noise_levels.{name} must be between 0 and 1, got {value}")
        for name in ("curriculum_images", "anneal_images"):
            value = getattr(levels, name)
            _require(value >= 0, f"noise_levels.{name} must be at least 0, got {value}")
        for name in ("perceptual", "entropy", "commitment"):
            value = getattr(losses, name)
            _require(0 <= value < math.inf, f"losses.{name} must be at least 0, got {value}")

    def micro_batches(self, processes: int) -> int:
        """Forward passes of one process in one update. Raises ConfigError for a batch that cannot be split so."""
        micro = self.micro_batch or self.batch_size // processes
        if micro == 0 or self.batch_size % (micro * processes):
            raise ConfigError(
                f"batch_size {self.batch_size} cannot be split over {processes} processes in micro-batches of "
                f"{self.micro_batch or 'equal size'}; make it a multiple of {(self.micro_batch or 1) * processes}"
            )
        return self.batch_size // (micro * processes)


def _require(holds: bool, message: str) -> None:
    if not holds:
        raise ConfigError(message)
