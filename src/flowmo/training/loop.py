"""The training loop: batches in, updates, log lines, checkpoints; a stage is the function that gives the loss."""

from __future__ import annotations

import json
import math
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch

from ..data import BatchLoader, ImageSource
from ..errors import TrainingError
from ..files import replacing
from ..stages import draw, mode_matching_loss
from ..stages.mode_matching import PerceptualDistance
from ..tokenizer import FlowMo
from ..weights import save_model
from . import schedule
from .checkpoint import AFTER_DIVERGENCE, TrainState, save_checkpoint
from .config import TrainConfig


class LossTerms(Protocol):
    """What a stage returns: a named tuple of scalars, of which ``total`` is minimised."""

    @property
    def total(self) -> torch.Tensor: ...

    def _asdict(self) -> dict[str, torch.Tensor]: ...


Check = Callable[[FlowMo, int], dict[str, float]]
"""Looks at the averaged model after so many images, writes pictures, and returns numbers for the log."""


class Outcome(NamedTuple):
    finished: bool
    images_seen: int
    reason: str


@dataclass
class Run:
    """One process of a run: where it writes, what it looks at, when it stops."""

    folder: Path
    config: TrainConfig
    state: TrainState
    loss: Callable[[torch.Tensor, torch.Generator, TrainState], LossTerms]
    check: Check | None = None
    time_limit: float = math.inf
    say: Callable[[str], None] = print
    started: float = field(default_factory=time.monotonic)

    def train(self, source: ImageSource) -> Outcome:
        """Until the configured images are seen, the time limit is near, or SIGTERM or SIGINT asks to stop; each ends
        with a checkpoint. Raises TrainingError when a loss is not finite."""
        config, state = self.config, self.state
        reason = "finished"
        last_checkpoint = time.monotonic()
        meter = Meter(state.images_seen)
        loader = BatchLoader(
            source,
            config.batch_size,
            state.model.config.image_size,
            config.seed,
            start=state.images_seen,
            flip=config.flip,
        )
        self.trim_log()
        with stop_requests() as stop, loader:
            batches = iter(loader)
            while state.images_seen < config.images:
                terms = self.update(next(batches).images)
                meter.add(terms)
                if state.step % config.log_steps == 0:
                    self.log(meter.line(state, config))
                    meter = Meter(state.images_seen)
                if self.crossed(config.check_images):
                    self.look()
                    meter = Meter(state.images_seen)
                if self.crossed_into_cooldown():
                    about = {"images": state.images_seen, "weights": "raw, before the cool-down"}
                    save_model(state.model, self.folder / "raw_before_cooldown.safetensors", torch.float32, about)
                if stop or time.monotonic() - self.started > self.time_limit:
                    reason = "stopped on request" if stop else "time limit"
                    break
                if time.monotonic() - last_checkpoint > 60 * config.checkpoint_minutes:
                    save_checkpoint(self.folder, state, config)
                    last_checkpoint = time.monotonic()
        save_checkpoint(self.folder, state, config)
        finished = state.images_seen >= config.images
        if finished:
            self.look()
        return Outcome(finished, state.images_seen, reason)

    def update(self, images: torch.Tensor) -> LossTerms:
        """One optimizer step on one batch. All randomness follows from the seed and the step's number."""
        config, state = self.config, self.state
        device = state.model.device
        state.model.train()
        for group in state.optimizer.param_groups:
            group["lr"] = schedule.learning_rate(config, state.images_seen)
        generator = torch.Generator(device).manual_seed(_seed_of_step(config.seed, state.step))
        state.optimizer.zero_grad(set_to_none=True)
        with torch.autocast(device.type, torch.bfloat16, enabled=config.precision == "bf16"):
            terms = self.loss(images.to(device, non_blocking=True), generator, state)
        if not torch.isfinite(terms.total):
            raise TrainingError(
                f"the loss is {terms.total.item()} at step {state.step}, {state.images_seen} images. {AFTER_DIVERGENCE}"
            )
        terms.total.backward()
        if config.gradient_clip is not None:
            norm = torch.nn.utils.clip_grad_norm_(state.model.parameters(), config.gradient_clip)
            if not torch.isfinite(norm):  # clipping would turn it into weights that are not numbers
                raise TrainingError(f"the gradient's norm is {norm.item()} at step {state.step}. {AFTER_DIVERGENCE}")
        state.optimizer.step()
        if state.normalization:
            state.normalization.apply()
        state.average.update(schedule.ema_decay(config, state.step))
        state.step += 1
        state.images_seen += images.shape[0]
        return terms

    def crossed(self, every: int) -> bool:
        seen = self.state.images_seen
        return seen // every != (seen - self.config.batch_size) // every

    def crossed_into_cooldown(self) -> bool:
        start, seen = self.config.images - self.config.cooldown_images, self.state.images_seen
        return self.config.cooldown_images > 0 and seen - self.config.batch_size < start <= seen

    def look(self) -> None:
        """Pictures, numbers and weights of the averaged model."""
        state = self.state
        state.average.swap()
        try:
            state.model.eval()
            about = {"images": state.images_seen, "weights": "moving average"}
            save_model(state.model, self.folder / "model.safetensors", about=about)
            if self.check:
                with torch.no_grad():
                    self.log({"images": state.images_seen} | self.check(state.model, state.images_seen))
        finally:
            state.average.swap()

    def trim_log(self) -> None:
        """Drop lines of work that was lost after the checkpoint, so that none stands there twice."""
        path = self.folder / "log.jsonl"
        kept = []
        for line in path.read_text().splitlines() if path.exists() else []:
            try:
                if json.loads(line)["images"] <= self.state.images_seen:
                    kept.append(line)
            except ValueError:  # cut off by a kill
                continue
        with replacing(path) as part:
            part.write_text("".join(f"{line}\n" for line in kept))

    def log(self, line: dict[str, Any]) -> None:
        with (self.folder / "log.jsonl").open("a") as file:
            file.write(json.dumps(line) + "\n")
        self.say("  ".join(f"{k} {v:,}" if isinstance(v, int) else f"{k} {v:.4g}" for k, v in line.items()))


def mode_matching_step(
    config: TrainConfig, perceptual: PerceptualDistance | None
) -> Callable[[torch.Tensor, torch.Generator, TrainState], LossTerms]:
    """Stage 1A as the loop wants it."""

    def loss(images: torch.Tensor, generator: torch.Generator, state: TrainState) -> LossTerms:
        levels = schedule.noise_levels(config, state.images_seen)
        draws = draw(images, levels, schedule.code_dropout(config, state.images_seen), generator)
        return mode_matching_loss(state.model, images, draws, config.losses, perceptual, config.perceptual_share)

    return loss


def _seed_of_step(seed: int, step: int) -> int:
    return int(np.random.SeedSequence([seed, step]).generate_state(1, np.uint64)[0] >> np.uint64(1))


class Meter:
    """Means of the loss terms since the last log line, and the speed."""

    def __init__(self, images_seen: int) -> None:
        self.since, self.began, self.count = images_seen, time.monotonic(), 0
        self.sums: dict[str, torch.Tensor] = {}

    def add(self, terms: LossTerms) -> None:
        self.count += 1
        for name, value in terms._asdict().items():
            self.sums[name] = self.sums.get(name, 0) + value.detach()

    def line(self, state: TrainState, config: TrainConfig) -> dict[str, Any]:
        speed = (state.images_seen - self.since) / max(time.monotonic() - self.began, 1e-9)
        return (
            {"step": state.step, "images": state.images_seen}
            | {name: float(value) / self.count for name, value in self.sums.items()}
            | {"lr": schedule.learning_rate(config, state.images_seen), "images_per_s": speed}
            | {"hours_left": (config.images - state.images_seen) / speed / 3600}
        )


@contextmanager
def stop_requests() -> Iterator[list[int]]:
    """A list that SIGTERM or SIGINT makes non-empty; a second one interrupts at once. Main thread only."""
    requests: list[int] = []

    def note(number: int, _frame: object) -> None:
        if requests:
            raise KeyboardInterrupt
        requests.append(number)

    try:
        old = {number: signal.signal(number, note) for number in (signal.SIGTERM, signal.SIGINT)}
    except ValueError:  # not the main thread: nothing to listen to
        yield requests
        return
    try:
        yield requests
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)
