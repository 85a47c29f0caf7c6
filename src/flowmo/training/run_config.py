"""What every stage's run can be told, measured in images: the settings that the loop reads (Section 4.1; A12, A16)."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import ClassVar, Literal

import torch

from ..errors import ConfigError


def fast_precision() -> Literal["bf16", "fp32"]:
    """bf16 (A17) where there is a GPU or the processor multiplies it; elsewhere products in bf16 take tens of times as
    long as in fp32."""
    has: dict[str, bool] = getattr(torch.cpu, "get_capabilities", dict)()  # newer than the oldest PyTorch that works
    processor = any(has.get(name) for name in ("avx512_bf16", "amx_bf16"))
    return "bf16" if torch.cuda.is_available() or processor else "fp32"


@dataclass(frozen=True)
class RunConfig:
    """Base of a stage's configuration, which adds what its loss needs.

    images: length of the run, cool-down included. batch_size: images of one update, over all processes; each forward
    pass takes ``micro_batch`` of them in each process (all of its share by default). learning_rate rises over
    ``warmup_images``, stays, and falls linearly to 0 over the last ``cooldown_images``. gradient_clip: largest norm of
    the whole gradient, none as published (A12). weight_normalization: see ``WeightNormalization``. ema_horizon:
    averaging length as a share of the run; ``ema_decay`` fixes the decay a step instead (0.9999 as published, A16), and
    ``ema_every`` steps are averaged at once.

    How it runs: precision, of matrix products, see :func:`fast_precision`; strategy, several processes keep the whole
    model each (ddp) or a part (fsdp); recompute_blocks saves memory for time; compile, the blocks by torch.compile (for
    GPUs; on a CPU it gains nothing). A step whose loss or gradient is not finite changes nothing; ``most_skipped`` of
    them in a row end the run. Every ``check_images`` the averaged model is looked at and written, every
    ``checkpoint_minutes`` a checkpoint, of which ``keep`` are kept.
    """

    trains: ClassVar[str] = "tokenizer"

    images: int = 1_000_000
    batch_size: int = 32
    micro_batch: int | None = None
    learning_rate: float = 1e-4
    betas: tuple[float, float] = (0.9, 0.95)
    warmup_images: int = 5_000
    cooldown_images: int = 250_000
    weight_normalization: bool = True
    gradient_clip: float | None = None
    ema_horizon: float = 0.04
    ema_decay: float | None = None
    ema_every: int = 1
    precision: Literal["bf16", "fp32"] = field(default_factory=fast_precision)
    seed: int = 0
    strategy: Literal["ddp", "fsdp"] = "ddp"
    recompute_blocks: bool = False
    compile: bool = False
    most_skipped: int = 10
    log_steps: int = 20
    check_images: int = 50_000
    checkpoint_minutes: float = 10.0
    keep: int = 2

    def __post_init__(self) -> None:
        for name in ("images", "batch_size", "ema_every", "most_skipped", "log_steps", "check_images", "keep"):
            require(getattr(self, name) >= 1, f"{name} must be at least 1, got {getattr(self, name)}")
        for name in ("warmup_images", "cooldown_images", "checkpoint_minutes", "seed"):
            require(getattr(self, name) >= 0, f"{name} must be at least 0, got {getattr(self, name)}")
        require(0 < self.ema_horizon <= 1, f"ema_horizon must be above 0 and at most 1, got {self.ema_horizon}")
        require(0 < self.learning_rate < math.inf, f"learning_rate must be positive, got {self.learning_rate}")
        require(all(0 <= beta < 1 for beta in self.betas), f"betas must be at least 0 and below 1, got {self.betas}")
        micro, decay, clip = self.micro_batch, self.ema_decay, self.gradient_clip
        require(micro is None or micro >= 1, f"micro_batch must be at least 1, got {micro}")
        require(decay is None or 0 <= decay < 1, f"ema_decay must be at least 0 and below 1, got {decay}")
        require(clip is None or clip > 0, f"gradient_clip must be positive, got {clip}")

    def micro_batches(self, processes: int) -> int:
        """Forward passes of one process in one update. Raises ConfigError for a batch that cannot be split so."""
        micro = self.micro_batch or self.batch_size // processes
        if micro == 0 or self.batch_size % (micro * processes):
            raise ConfigError(
                f"batch_size {self.batch_size} cannot be split over {processes} processes in micro-batches of "
                f"{self.micro_batch or 'equal size'}; make it a multiple of {(self.micro_batch or 1) * processes}"
            )
        return self.batch_size // (micro * processes)


def require(holds: bool, message: str) -> None:
    """Raises ConfigError unless ``holds``."""
    if not holds:
        raise ConfigError(message)
