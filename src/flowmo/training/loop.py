"""The training loop of every stage: batches in, updates, log lines, checkpoints, on one process or many."""

from __future__ import annotations

import math
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn

from ..errors import TrainingError
from . import health, schedule
from .checkpoint import AFTER_DIVERGENCE, save_checkpoint
from .distributed import World, gradients_exchanged, whole
from .early_stopping import best, checks_of, verdict
from .logs import Log
from .run_config import RunConfig
from .state import TrainState
from .steps import Loader, TrainBatch, TrainStep

PICTURES, BEST = "pictures", "best"
Check = Callable[[Any, int], dict[str, Any]]
"""Looks at the averaged model after so many images, writes ``pictures/<images>.png``, returns numbers for the log."""


class Outcome(NamedTuple):
    """reason: why training stopped, in words. again: the run is to be built anew from its newest checkpoint."""

    finished: bool
    images_seen: int
    reason: str
    again: bool = False


@dataclass
class Run:
    """One process of a run: what it trains, where it writes, when it stops.

    step: the stage; ready: the same, spread over the world (``distributed.spread``). log: in the main process only.
    deadline: by ``time.monotonic()``. about: more for the checkpoints. cost: floating-point operations of one image and
    those that the device could do in a second, for the utilisation. patience: of a run that its checks may end
    (``early_stopping.py``); None for any other.
    """

    folder: Path
    config: RunConfig
    step: TrainStep
    ready: nn.Module
    state: TrainState
    world: World = field(default_factory=World)
    log: Log | None = None
    check: Check | None = None
    deadline: float = math.inf
    about: dict[str, Any] = field(default_factory=dict)
    cost: tuple[float, float] | None = None
    meter: health.Meter = field(default_factory=health.Meter)
    patience: int | None = None
    skipped_in_a_row: int = 0
    broken: set[str] = field(default_factory=set)

    def train(self, loader: Loader) -> Outcome:
        """Until the configured images are seen, the deadline is near, SIGTERM or SIGINT asks to stop, the encoder is to
        be frozen, or checks end it; each ends with a checkpoint. ``loader`` starts at ``state.images_seen``.

        Raises TrainingError when too many steps in a row are not finite, after a checkpoint of the last good one.
        """
        config, state = self.config, self.state
        reason, again, trained, last_checkpoint = "finished", False, False, time.monotonic()
        early = self.begin_checks()
        with stop_requests() as stop, loader:
            batches = iter(loader)
            self.meter.restart_clock()
            while state.images_seen < config.images and not early:
                asked = time.monotonic()
                batch = next(batches)
                self.meter.waited += time.monotonic() - asked
                minutes = (time.monotonic() - last_checkpoint) / 60
                wishes = [bool(stop), time.monotonic() > self.deadline, minutes > config.checkpoint_minutes]
                stopped, late, due, broken = self.update(batch, [*wishes, bool(batch.skipped)])
                trained = True
                if broken:
                    self.name_broken(batch)
                if state.step % config.log_steps == 0:
                    self.write_line()
                if config.cooldown_images and self.crossed(config.images - config.cooldown_images):
                    self.save_weights("raw_before_cooldown", "raw, before the cool-down")
                if self.crossed_multiple(config.check_images) and state.images_seen < config.images:
                    early = self.look()
                if stopped or late:
                    reason = "stopped on request" if stopped else "time limit"
                    break
                if self.step.ends_after is not None and self.crossed(self.step.ends_after):
                    reason, again = "encoder frozen", True
                    break
                if self.skipped_in_a_row >= config.most_skipped:
                    self.save()
                    raise TrainingError(
                        f"{self.skipped_in_a_row} steps in a row had a loss or gradient that is not finite, the last "
                        f"at step {state.step}; the weights of the last good step are saved. {AFTER_DIVERGENCE}"
                    )
                if due:
                    self.save()
                    last_checkpoint = time.monotonic()
        finished = state.images_seen >= config.images or bool(early)
        # An older one must not pass for the final, if a kill comes now.
        if finished and trained and not early and self.world.main:
            (self.folder / "model.safetensors").unlink(missing_ok=True)
        if trained or not finished:
            self.save()
        if early:
            return Outcome(True, state.images_seen, early)
        if finished and (trained or not (self.folder / "model.safetensors").exists()):
            self.look()
        return Outcome(finished, state.images_seen, reason, again and not finished)

    def update(self, batch: TrainBatch, wishes: list[bool]) -> list[bool]:
        """One optimizer step on this process's share of a batch, in micro-batches. A step that is not finite changes
        neither weights, moments nor averages.

        All randomness follows from the seed, the step's number and the micro-batch's, which are numbered over all
        processes: one process with micro-batches takes the step that several without them take. Returns ``wishes`` as
        all processes agreed on them: what one wants, all do.
        """
        config, state, world = self.config, self.state, self.world
        parts = config.micro_batches(world.size)
        self.ready.train()
        for group in state.optimizer.param_groups:
            group["lr"] = schedule.learning_rate(config, state.images_seen) * group["scale"]
        state.optimizer.zero_grad(set_to_none=True)
        sums: dict[str, torch.Tensor] = {}
        for k in range(parts):
            part = batch.part(k, parts).to(world.device)
            seed = _seed(config.seed, state.step, world.rank + world.size * k)
            generator = torch.Generator(world.device).manual_seed(seed)
            with gradients_exchanged(self.ready, k == parts - 1):
                with torch.autocast(world.device.type, torch.bfloat16, enabled=config.precision == "bf16"):
                    terms = self.ready(part, generator, state.images_seen)
                (terms.total / parts).backward()
            for name, value in terms._asdict().items():
                if value is not None:
                    sums[name] = sums.get(name, 0) + value.detach() / parts
        norm = health.gradient_norm(state)
        finite = bool((norm + sums["total"]).isfinite())
        bad, *agreed = world.largest([float(not finite), *map(float, wishes)])
        if bad:
            self.skip(batch, float(sums["total"]), float(norm))
        else:
            if config.gradient_clip is not None:
                health.clip_gradient(state, norm, config.gradient_clip)
            state.optimizer.step()
            if state.normalization:
                state.normalization.apply()
            decay = schedule.ema_decay(config, state.step)
            if decay is not None:
                state.average.update(decay)
            self.meter.add(sums | {"gradient_norm": norm})
            self.skipped_in_a_row = 0
        state.step += 1
        state.images_seen += config.batch_size
        self.meter.images += config.batch_size
        return [bool(wish) for wish in agreed]

    def skip(self, batch: TrainBatch, loss: float, norm: float) -> None:
        """Count a step that was not finite, and write down what it was fed."""
        self.state.optimizer.zero_grad(set_to_none=True)
        self.state.skipped += 1
        self.skipped_in_a_row += 1
        parts = self.world.gather((loss, norm, batch.names))
        if self.log:
            line = {
                "images": self.state.images_seen + self.config.batch_size,
                "skipped_step": self.state.step + 1,
                "loss": [str(loss) for loss, _, _ in parts],
                "gradient": str(norm),
                "batch": [name for _, _, names in parts for name in names],
            }
            self.log.write(line)

    def name_broken(self, batch: TrainBatch) -> None:
        """Count the broken images that others stood in for, each once, and write their names. All processes call it."""
        names = [name for each in self.world.gather(list(batch.skipped)) for name in each if name not in self.broken]
        self.broken.update(names)
        self.state.broken_images += len(names)
        if self.log and names:
            counted = {"images": self.state.images_seen, "broken_images": self.state.broken_images}
            self.log.write(counted | {"broken": names})
            self.log.say(f"broken, others are shown instead: {', '.join(names)}")

    def write_line(self) -> None:
        """The means since the last line, and how the run does."""
        state, config = self.state, self.config
        means = self.meter.means(self.world)
        speed = self.meter.speed(state, config.images)
        norm = health.parameter_norm(state)
        line: dict[str, Any] = {"step": state.step, "images": state.images_seen} | means
        line |= {"parameter_norm": norm, "lr": schedule.learning_rate(config, state.images_seen)} | speed
        if self.cost:
            line["utilisation"] = speed["images_per_s"] * self.cost[0] / (self.cost[1] * self.world.size)
        line |= {"memory_mb": health.memory_mb(self.world.device), "skipped_steps": state.skipped}
        line |= {"broken_images": state.broken_images}
        if self.log:
            self.log.write({name: value for name, value in line.items() if value is not None})
        self.meter.restart()

    def crossed(self, mark: int) -> bool:
        """Whether the last step reached this number of images."""
        return self.state.images_seen - self.config.batch_size < mark <= self.state.images_seen

    def crossed_multiple(self, every: int) -> bool:
        return self.crossed(self.state.images_seen // every * every)

    def save(self) -> None:
        about = self.step.about() | self.about
        save_checkpoint(self.folder, self.state, self.config, self.world, about, self.meter.state(self.world))

    def begin_checks(self) -> str | None:
        """Where checks may end the run: a first one before any training; or why they have ended it already."""
        if self.patience is None:
            return None
        checks = self.world.share(checks_of(self.log.path) if self.log else None)
        return verdict(checks, self.patience) if checks else self.look()

    def look(self) -> str | None:
        """Pictures, numbers and weights of the averaged model. Where checks may end the run, its best weights so far
        too, and why it is to stop if it is."""
        images, early = self.state.images_seen, None
        model = self.save_weights("model", "moving average")
        if model is not None and self.check and self.log:
            with torch.no_grad():
                numbers = {"images": images} | self.check(model.to(self.world.device).eval(), images)
            self.log.write(numbers)
            self.log.picture(self.folder / PICTURES / f"{images:010d}.png", images)
            if self.patience is not None:
                checks = checks_of(self.log.path)
                if best(checks) == numbers:
                    about = {"weights": "moving average, the best check"} | numbers
                    self.step.save(model, self.folder / f"{BEST}.safetensors", about)
                early = verdict(checks, self.patience)
        self.world.wait()
        self.meter.restart_clock()
        return self.world.share(early)

    def save_weights(self, name: str, what: str) -> nn.Module | None:
        """Write the averaged or the raw weights as a model file; the model that holds them, in the main process."""
        state, averaged = self.state, what == "moving average"
        source = state.average.average if averaged else dict(state.model.named_parameters())
        weights = {}
        for key, tensor in source.items():
            full = whole(tensor.detach())
            if self.world.main:
                weights[key] = full.cpu().clone()
        if not self.world.main:
            return None
        model = self.step.new_model()
        model.load_state_dict(weights)
        about = {"images": state.images_seen, "weights": what}
        dtype = torch.float16 if averaged else torch.float32
        self.step.save(model, self.folder / f"{name}.safetensors", about, dtype)
        return model


def _seed(seed: int, step: int, micro_batch: int) -> int:
    words = np.random.SeedSequence([seed, step, micro_batch]).generate_state(1, np.uint64)
    return int(words[0] >> np.uint64(1))


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
