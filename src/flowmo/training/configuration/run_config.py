"""What every stage's run can be told, measured in images: the settings that the loop reads (Section 4.1; A12, A16)."""

from __future__ import annotations

import functools
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch

from ...errors import ConfigError, require

SIDE, FASTER = 256, 0.8
"""Of the products that are timed; what bf16 may take of float32's time, so that chance decides nothing."""


@functools.cache
def fast_precision() -> Literal["bf16", "fp32"]:
    """Return bf16 (A17) on a GPU, and where the processor multiplies it faster than float32; fp32 elsewhere.

    Processors that have instructions for bf16 can be half as fast with it, others take tens of times as long: the
    first are timed, once a process, in a few milliseconds; the others are not asked.
    """
    if torch.cuda.is_available():
        return "bf16"
    has: dict[str, bool] = getattr(torch.cpu, "get_capabilities", dict)()  # newer than the oldest PyTorch that works
    if not any(has.get(name) for name in ("avx512_bf16", "amx_bf16")):
        return "fp32"
    half, full = product_seconds((torch.bfloat16, torch.float32))
    return "bf16" if half < FASTER * full else "fp32"


@torch.no_grad()
def product_seconds(kinds: Sequence[torch.dtype], repeats: int = 6) -> list[float]:
    """Return the seconds of one matrix product on one core, for each type of its numbers.

    It is the least of a few times, taken by turns, after one that does not count. Where the system tells, it is the
    time of this thread alone, so that other work hardly matters.
    """
    clock = time.thread_time if time.get_clock_info("thread_time").resolution < 1e-5 else time.perf_counter
    matrices = [torch.ones(SIDE, SIDE, dtype=kind, device="cpu") for kind in kinds]
    least, threads = [math.inf] * len(kinds), torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        for repeat in range(repeats + 1):
            for k, matrix in enumerate(matrices):
                start = clock()
                matrix @ matrix
                if repeat:
                    least[k] = min(least[k], clock() - start)
    finally:
        torch.set_num_threads(threads)
    return least


@dataclass(frozen=True)
class RunConfig:
    """Base of every run's configuration: what the loop reads, whatever it trains. A stage adds what its loss needs."""

    trains: ClassVar[str] = "tokenizer"  # what a run trains

    images: int = 1_000_000  # length of the run, cool-down included
    batch_size: int = 32  # images of one update, over all processes
    micro_batch: int | None = None  # of them in one forward pass of one process; None is all of its share
    learning_rate: float = 1e-4  # at its highest, between warm-up and cool-down
    betas: tuple[float, float] = (0.9, 0.95)  # of Adam (A12)
    optimizer: Literal["adam", "muon"] = "adam"  # muon: for the matrices inside the blocks, Adam for the rest (O16)
    warmup_images: int = 5_000  # over which the rate rises
    cooldown_images: int = 250_000  # the last ones, over which it falls linearly to 0
    weight_normalization: bool = True  # see ``WeightNormalization`` (A15)
    gradient_clip: float | None = None  # largest norm of the whole gradient; none as published (A12)
    ema_horizon: float = 0.04  # averaging length as a share of the run
    ema_decay: float | None = None  # or a fixed decay a step, 0.9999 as published (A16)
    ema_every: int = 1  # steps that are averaged at once
    precision: Literal["auto", "bf16", "fp32"] = "auto"  # of matrix products; auto is ``fast_precision`` at the start
    tf32: bool = False  # products that stay in float32 as TF32, on GPUs that have it (A17)
    seed: int = 0  # of all randomness
    strategy: Literal["ddp", "fsdp"] = "ddp"  # several processes keep the whole model each, or a part of it
    recompute_blocks: bool | float = False
    """Activation checkpointing, less memory for more time: of all blocks, or of this share of them, the first ones."""
    compile: bool = False  # the blocks by torch.compile; on a CPU it takes minutes at the start, see docs/TRAINING.md
    most_skipped: int = 10  # steps in a row that are not finite, and change nothing, before the run ends
    log_steps: int = 20  # steps between lines of the log
    validate_every: int = 50_000  # images between validations of the averaged model, which is written then too
    checkpoint_minutes: float = 10.0  # minutes between checkpoints
    keep: int = 2  # checkpoints that are kept

    def __post_init__(self) -> None:
        for name in ("images", "batch_size", "ema_every", "most_skipped", "log_steps", "validate_every", "keep"):
            require(getattr(self, name) >= 1, f"{name} must be at least 1, got {getattr(self, name)}")
        for name in ("warmup_images", "cooldown_images", "checkpoint_minutes", "seed"):
            require(getattr(self, name) >= 0, f"{name} must be at least 0, got {getattr(self, name)}")
        for name, most in (("images", 10**10), ("batch_size", 2**24), ("seed", 2**63)):
            require(getattr(self, name) < most, f"{name} must be below {most:,}, got {getattr(self, name):,}")
        require(0 < self.ema_horizon <= 1, f"ema_horizon must be above 0 and at most 1, got {self.ema_horizon}")
        require(0 < self.learning_rate < math.inf, f"learning_rate must be positive, got {self.learning_rate}")
        require(all(0 <= beta < 1 for beta in self.betas), f"betas must be at least 0 and below 1, got {self.betas}")
        require(
            self.optimizer == "adam" or self.strategy != "fsdp",
            "optimizer=muon needs whole matrices, which strategy=fsdp cuts; use strategy=ddp or optimizer=adam",
        )
        share = self.recompute_blocks
        require(0 <= share <= 1, f"recompute_blocks must be false, true or a share from 0 to 1, got {share}")
        micro, decay, clip = self.micro_batch, self.ema_decay, self.gradient_clip
        require(micro is None or micro >= 1, f"micro_batch must be at least 1, got {micro}")
        require(decay is None or 0 <= decay < 1, f"ema_decay must be at least 0 and below 1, got {decay}")
        require(clip is None or clip > 0, f"gradient_clip must be positive, got {clip}")

    @property
    def chosen_precision(self) -> Literal["bf16", "fp32"]:
        """Return the precision of matrix products, which ``auto`` leaves to this machine."""
        return fast_precision() if self.precision == "auto" else self.precision

    def micro_batches(self, processes: int) -> int:
        """Return the forward passes of one process in one update. Raises ConfigError for one that cannot be split."""
        micro = self.micro_batch or self.batch_size // processes
        if micro == 0 or self.batch_size % (micro * processes):
            raise ConfigError(
                f"batch_size {self.batch_size} cannot be split over {processes} processes in micro-batches of "
                f"{self.micro_batch or 'equal size'}; make it a multiple of {(self.micro_batch or 1) * processes}"
            )
        return self.batch_size // (micro * processes)
