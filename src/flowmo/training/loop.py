"""The training loop of every stage: fetch, step, log, validate, save, on one process or many."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn

from ..devices import peak_memory_mb
from ..errors import TrainingError
from ..stages import Stage
from .checkpoints.checkpoint import AFTER_DIVERGENCE
from .checkpoints.saver import Saver
from .configuration.run_config import RunConfig
from .monitoring import health
from .monitoring.logs import Log
from .monitoring.progress import Bar
from .monitoring.validation import Validation, Validator
from .optimization import schedule
from .optimization.state import TrainState
from .processes.distributed import World, clear_gradients, gradients_exchanged
from .processes.signals import Exchange, Signals, stop_requests
from .trained import Loader, ModelKind, TrainBatch

FROZEN = "encoder frozen"
LATE = 10.0  # seconds after the time limit that an update may still take; the rest of its micro-batches is given up
NO_SIGNALS = Signals()


class Outcome(NamedTuple):
    """How a call of the loop ended."""

    finished: bool  # whether the run has nothing left to do
    images_seen: int  # over the whole run
    reason: str  # why training stopped, in words
    again: bool = False  # whether the run is to be built anew from its newest checkpoint, and to go on
    planned: int = 0  # images of the whole run
    cooling: bool = False  # whether its cool-down has begun


class OutOfTime(Exception):
    """The time limit was over in the middle of an update."""


class Pending(NamedTuple):
    """A step whose weights are moved, and of which the rest waits for what all agree on."""

    exchange: Exchange  # of what all want, begun and perhaps not read
    batch: TrainBatch  # that the step was taken on
    sums: dict[str, torch.Tensor]  # means of its loss terms
    step: int  # updates before it
    images: int  # seen with it


@dataclass
class Run:
    """One process of a run: what it trains, where it writes, when it stops."""

    folder: Path  # where it writes
    config: RunConfig  # its settings
    stage: Stage  # gives the loss; holds the model
    kind: ModelKind  # how its model is written
    ready: nn.Module  # the stage, spread over the world (``distributed.spread``)
    state: TrainState  # weights, EMA, moments, counters
    world: World = field(default_factory=World)  # its processes
    log: Log | None = None  # in the main process only
    validation: Validation | None = None  # what measures the EMA, if anything does
    deadline: float = math.inf  # by ``time.monotonic()``
    about: dict[str, Any] = field(default_factory=dict)  # more for the checkpoints
    cost: tuple[float, float] | None = None  # operations of an image, and of the device in a second: for utilisation
    meter: health.Meter = field(default_factory=health.Meter)  # means for the next line of the log
    patience: int | None = None  # of a run that validation may end (``early_stopping.py``); None for any other
    rebuild_after: int | None = None  # images after which the run is to be built anew, the encoder frozen (A14)
    deferred: bool | None = None  # read what all agreed on a step later, so that no step waits for a GPU; None: on one
    validation_seconds: float = 0.0  # that one validation is expected to take
    bar: Bar | None = None  # in the main process, where one is wanted
    took: float = field(default=0.0, init=False)  # seconds of the last update with its batch
    pending: Pending | None = field(default=None, init=False)  # the step that is not finished
    skipped_in_a_row: int = field(default=0, init=False)  # steps that were not finite, up to now
    broken: set[str] = field(default_factory=set, init=False)  # names of broken images that were counted
    last_checkpoint: float = field(default=0.0, init=False)  # when it was begun, by ``time.monotonic()``
    saver: Saver = field(init=False)  # writes the checkpoints

    def __post_init__(self) -> None:
        self.saver = Saver(self.folder, self.config, self.world)
        if self.deferred is None:  # the kernels of sharded weights take no such flag
            sharded = self.world.size > 1 and self.config.strategy == "fsdp"
            self.deferred = self.world.device.type == "cuda" and not sharded

    def train(self, loader: Loader) -> Outcome:
        """Train to the end of the run, or until something else ends this call; return how it ended.

        It ends when the configured images are seen, the time is over, SIGTERM or SIGINT asks to stop, the encoder is to
        be frozen, or validation ends it: each time with a checkpoint. ``loader`` starts at ``state.images_seen``.

        Raises TrainingError when too many steps in a row are not finite, after a checkpoint of the last good one.
        """
        validator = self.validator()
        early, reason, trained = validator.begin(), None, False
        self.last_checkpoint = time.monotonic()
        with self.saver, stop_requests() as stop, loader:
            batches = iter(loader)
            self.meter.restart_clock()
            while self.state.images_seen < self.config.images and not early and not reason:
                began = time.monotonic()
                batch = self.fetch(batches)
                try:
                    signals = self.update(batch, self.signals(bool(stop), batch))
                except OutOfTime:
                    reason = "time limit"
                    self.give_up()
                    break
                self.took = time.monotonic() - began
                if not trained and self.log:
                    self.log.say(self.first_step())
                trained = True
                if self.bar:
                    self.bar.advance(self.config.batch_size)
                if self.state.step % self.config.log_steps == 0:
                    self.write_line()
                if self.cooldown_begins():
                    validator.save_raw("raw_before_cooldown", "raw, before the cool-down")
                if self.validation_due():
                    self.settle()
                    early = validator.validate()
                reason = self.reason_to_stop(signals)
                if signals.save and not reason:
                    self.save()
        return self.finish(validator, early, reason, trained)

    def give_up(self) -> None:
        """Forget what was computed of an update that the time limit cuts off, and say so. It is taken again later."""
        clear_gradients(self.ready, self.state.optimizer)
        if self.log:
            self.log.say(
                f"the time limit came within an update of {self.config.batch_size} images, which is not counted; "
                "give a longer --time-limit or a smaller batch_size, so that an update can end"
            )

    def first_step(self) -> str:
        """Return how long the first update of this call took, in words."""
        every = self.config.log_steps * self.config.batch_size
        seconds = time.monotonic() - self.meter.began
        return f"first update of {self.config.batch_size} images after {seconds:.1f} s; a line every {every:,} images"

    def validator(self) -> Validator:
        """Return what validates this run and writes its weights."""
        return Validator(
            self.folder,
            self.config,
            self.kind,
            self.state,
            self.world,
            self.log,
            self.validation,
            patience=self.patience,
            deadline=self.deadline,
            longest=self.validation_seconds,
            meter=self.meter,
        )

    def fetch(self, batches: Iterator[TrainBatch]) -> TrainBatch:
        """Return the next batch of this process; the wait for it is measured."""
        asked = time.monotonic()
        batch = next(batches)
        self.meter.waited += time.monotonic() - asked
        return batch

    def signals(self, stop: bool, batch: TrainBatch) -> Signals:
        """Return the signals of this process before a step: what it wants of all.

        It wants to stop after the step where another would end after the deadline.
        """
        now = time.monotonic()
        save = (now - self.last_checkpoint) / 60 > self.config.checkpoint_minutes
        return Signals(stop, now + 2 * self.took > self.deadline, save, bool(batch.skipped))

    def update(self, batch: TrainBatch, signals: Signals = NO_SIGNALS) -> Signals:
        """Take one optimizer step on this process's share of a batch, in micro-batches; return what all agreed on.

        That is what they agreed on in this step or, where it is put off, in the one before.

        A step that is not finite changes neither weights, moments nor EMA. All randomness follows from the seed, the
        step's number and the micro-batch's, which are numbered over all processes: one process with micro-batches takes
        the step that several without them take.
        """
        config, state, world = self.config, self.state, self.world
        self.ready.train()
        for group in state.optimizer.param_groups:
            group["lr"] = schedule.learning_rate(config, state.images_seen) * group["scale"]
        clear_gradients(self.ready, state.optimizer)
        sums = self.differentiate(batch)
        norm = health.gradient_norm(state)
        agreed = self.settle()  # of the step before, where that was put off; its EMA is taken before this one's update
        exchange = Exchange(signals, (norm + sums["total"]).isfinite(), world)
        seen = state.images_seen + config.batch_size
        self.pending = Pending(exchange, batch, sums | {"gradient_norm": norm}, state.step, seen)
        if self.deferred:
            self.apply(norm, exchange.not_finite)
        else:
            if not exchange.read().not_finite:
                self.apply(norm)
            agreed = self.settle()
        state.step += 1
        state.images_seen = seen
        self.meter.images += config.batch_size
        return agreed

    def settle(self) -> Signals:
        """Finish the last step, if it is not finished; return what all agreed on in it. Every process must call it.

        What may be left of it are its EMA, its line if it was skipped, and its broken images.
        """
        if self.pending is None:
            return NO_SIGNALS
        last, self.pending = self.pending, None
        agreed = last.exchange.read()
        if agreed.not_finite:
            self.skip(last)
        else:
            decay = schedule.ema_decay(self.config, last.step)
            if decay is not None:
                self.state.ema.update(decay)
            self.meter.add(last.sums)
            self.skipped_in_a_row = 0
        if agreed.broken:
            self.name_broken(last)
        return agreed

    def differentiate(self, batch: TrainBatch) -> dict[str, torch.Tensor]:
        """Compute the gradient of a batch's loss; return the means of the loss terms over its micro-batches.

        Raises OutOfTime where one process alone is well beyond the time limit before the last of them.
        """
        config, state, world = self.config, self.state, self.world
        parts = config.micro_batches(world.size)
        sums: dict[str, torch.Tensor] = {}
        for k in range(parts):
            # Several processes would have to agree on it, which an exchange in each micro-batch would cost.
            if k and world.size == 1 and time.monotonic() > self.deadline + LATE:
                raise OutOfTime
            part = batch.part(k, parts).to(world.device)
            seed = _seed(config.seed, state.step, world.rank + world.size * k)
            generator = torch.Generator(world.device).manual_seed(seed)
            with gradients_exchanged(self.ready, k == parts - 1):
                with torch.autocast(world.device.type, torch.bfloat16, enabled=config.chosen_precision == "bf16"):
                    terms = self.ready(part, generator, state.images_seen)
                (terms.total / parts).backward()
            for name, value in terms._asdict().items():
                if value is not None:
                    sums[name] = sums.get(name, 0) + value.detach() / parts
        return sums

    def apply(self, norm: torch.Tensor, skipped: torch.Tensor | None = None) -> None:
        """Move weights and moments by the gradient, whose norm is ``norm``.

        skipped: 1, on the device, where nothing is to change. The optimizer's kernel and the norms then leave
        everything as it is, to the bit.
        """
        config, state = self.config, self.state
        if config.gradient_clip is not None:
            health.clip_gradient(state, norm, config.gradient_clip)
        state.optimizer.found_inf = skipped  # type: ignore[attr-defined]
        state.optimizer.step()
        if state.normalization:
            state.normalization.apply(skipped)

    def skip(self, last: Pending) -> None:
        """Count a step that was not finite, and write down what it was fed."""
        self.state.skipped += 1
        self.skipped_in_a_row += 1
        own = float(last.sums["total"]), float(last.sums["gradient_norm"]), last.batch.names
        parts = self.world.gather(own)
        if self.log:
            line = {
                "images": last.images,
                "skipped_step": last.step + 1,
                "loss": [str(loss) for loss, _, _ in parts],
                "gradient": str(own[1]),
                "batch": [name for _, _, names in parts for name in names],
            }
            self.log.write(line)

    def name_broken(self, last: Pending) -> None:
        """Count the broken images that others stood in for, each once, and write their names. All processes call it."""
        gathered = self.world.gather(list(last.batch.skipped))
        names = list(dict.fromkeys(name for each in gathered for name in each if name not in self.broken))
        self.broken.update(names)
        self.state.broken_images += len(names)
        if self.log and names:
            counted = {"images": last.images, "broken_images": self.state.broken_images}
            self.log.write(counted | {"broken": names})
            self.log.say(f"cannot be read, so other images take their place: {', '.join(names)}")

    def write_line(self) -> None:
        """Write a line of the log: the means since the last one, and how the run does. Every process must call it."""
        self.settle()
        self.report_checkpoint()
        state, config = self.state, self.config
        means = self.meter.means(self.world)
        speed = self.meter.speed(state, config.images)
        norm = health.parameter_norm(state)
        line: dict[str, Any] = {"step": state.step, "images": state.images_seen} | means
        line |= {"parameter_norm": norm, "lr": schedule.learning_rate(config, state.images_seen)} | speed
        if self.cost:
            line["utilisation"] = speed["images_per_s"] * self.cost[0] / (self.cost[1] * self.world.size)
        line |= {"memory_mb": peak_memory_mb(self.world.device), "skipped_steps": state.skipped}
        line |= {"broken_images": state.broken_images}
        if self.log:
            self.log.write({name: value for name, value in line.items() if value is not None})
        self.meter.restart()

    def reason_to_stop(self, signals: Signals) -> str | None:
        """Return why training is to stop after this step, in words; None to go on.

        Raises TrainingError, after a checkpoint, where too many steps in a row were not finite.
        """
        alone, left = self.world.size == 1, self.state.images_seen < self.config.images
        if signals.stop or signals.deadline or (alone and left and time.monotonic() > self.deadline):
            return "stopped on request" if signals.stop else "time limit"
        if self.rebuild_after is not None and self.crossed(self.rebuild_after):
            return FROZEN
        if self.skipped_in_a_row >= self.config.most_skipped:
            self.save(wait=True)
            self.validator().write_average()
            raise TrainingError(
                f"{self.skipped_in_a_row} steps in a row had a loss or gradient that is not finite, the last "
                f"at step {self.state.step}; the weights of the last good step are saved. {AFTER_DIVERGENCE}"
            )
        return None

    def finish(self, validator: Validator, early: str | None, reason: str | None, trained: bool) -> Outcome:
        """Write the last checkpoint and weights; return how training ended. early: why validation ended it."""
        self.settle()
        images_seen, weights = self.state.images_seen, self.folder / "model.safetensors"
        finished = images_seen >= self.config.images or bool(early)
        # An older one must not pass for the final, if a kill comes now.
        if finished and trained and not early and self.world.main:
            weights.unlink(missing_ok=True)
        if trained or not finished:
            self.save(wait=True)
        if early:
            return Outcome(True, images_seen, early)
        again = reason == FROZEN and not finished
        if finished and (trained or not weights.exists()):
            validator.validate()
        elif not finished and not again:
            validator.write_average()
        cooling = images_seen > self.config.images - self.config.cooldown_images
        return Outcome(finished, images_seen, reason or "finished", again, self.config.images, cooling)

    def crossed(self, mark: int) -> bool:
        """Return whether the last step reached this number of images."""
        return self.state.images_seen - self.config.batch_size < mark <= self.state.images_seen

    def cooldown_begins(self) -> bool:
        """Return whether the last step was the last one before the cool-down."""
        return bool(self.config.cooldown_images) and self.crossed(self.config.images - self.config.cooldown_images)

    def validation_due(self) -> bool:
        """Return whether a validation is due, other than the one at the end."""
        seen, every = self.state.images_seen, self.config.validate_every
        return self.crossed(seen // every * every) and seen < self.config.images

    def save(self, wait: bool = False) -> None:
        """Begin to write a checkpoint, and wait until it is whole if asked to. Every process must call it."""
        self.settle()
        about = self.kind.about(self.stage.model) | self.about
        self.saver.begin(self.state, about, self.meter.state(self.world))
        if wait:
            self.saver.wait()
        self.report_checkpoint()
        self.last_checkpoint = time.monotonic()

    def report_checkpoint(self) -> None:
        """Write down what the last checkpoint took, once it is whole."""
        for report in self.saver.reports():
            if self.log:
                self.log.write(report)


def _seed(seed: int, step: int, micro_batch: int) -> int:
    words = np.random.SeedSequence([seed, step, micro_batch]).generate_state(1, np.uint64)
    return int(words[0] >> np.uint64(1))
