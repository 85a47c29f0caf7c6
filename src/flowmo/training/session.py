"""One call that trains, from a notebook or a command, on one process or many (Section 4.1).

It serves the tokenizer, post-training, distillation and the generator.
"""

from __future__ import annotations

import contextlib
import gc
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from ..config import to_dict
from ..data import DataFingerprint, changes
from ..devices import tf32_products
from ..errors import ConfigError, TrainingError
from ..files import check_writable
from ..provenance import code_version
from .checkpoints.checkpoint import Checkpoint, checkpoints, read_checkpoint, read_newest
from .checkpoints.run_folder import WEIGHTS, run_folder, write_config
from .configuration.run_config import RunConfig
from .loop import Outcome, Run
from .monitoring.logs import Log, duration
from .monitoring.progress import Bar
from .monitoring.validation import MOST_OF_LIMIT, SizedValidation
from .plan import Plan
from .processes.distributed import World
from .start import check_same, cooled_down
from .trained import Loader


def say_on_stdout(line: str) -> None:
    """Print a line at once."""
    print(line, flush=True)


@dataclass(frozen=True)
class TrainOptions:
    """How one call of :func:`train` runs; a later call may have others."""

    device: str = "cpu"  # or cuda: under torchrun each process takes the GPU of its local rank
    seconds: float = math.inf  # time limit; training then stops with a checkpoint
    resume: Path | None = None  # a checkpoint of another run, to begin from where the folder holds none
    cooldown: int | None = None  # images of a cool-down with which the run is to end from where it is
    wandb: str | None = None  # project of Weights & Biases to report to
    bar: bool = False  # show a bar, where stderr is a terminal
    command: str = ""  # what made the run, for its checkpoints
    say: Callable[[str], None] = say_on_stdout  # told lines for a person, in the main process


def train(plan: Plan[Any, Any, Any], source: Any, folder: str | Path, options: TrainOptions | None = None) -> Outcome:
    """Train what ``plan`` says on ``source`` and write to ``folder``; return how it ended.

    source: images (``data.open_images``) or tokens (``training.read_token_set``), as the plan takes them.
    folder: gets checkpoints, ``config.json``, ``log.jsonl``, sample images and, in the end, ``model.safetensors``. The
    same call again goes on from its newest checkpoint, exactly.
    Raises ConfigError for settings that do not fit, TrainingError for a folder of another run and for a training that
    cannot go on.
    """
    options = options or TrainOptions()
    folder = Path(folder)
    check_writable(folder)
    deadline = time.monotonic() + options.seconds
    with World.join(options.device) as world:
        say: Callable[[str], None] = options.say if world.main else lambda line: None
        plan.config.micro_batches(world.size)  # tells early that a batch cannot be split
        plan.to(world.device)
        fresh = [] if checkpoints(folder) or options.resume else [plan.seeded_model()]  # before the folder is made
        with tf32_products(plan.config.tf32), run_folder(folder, world):
            say(f"training on {source.describe()}")
            session = Session(plan, source, folder, options, world, say, deadline)
            while True:
                with session.begun(fresh) as (run, loader):
                    outcome = run.train(loader)
                del run, loader  # nothing keeps the model alive when the run is built anew
                if not outcome.again:
                    break
                say(f"{outcome.reason} after {outcome.images_seen:,} images")
                free_memory(world.device)
                if plan.config.compile:
                    torch.compiler.reset()  # versions of blocks add up to more than are kept, and some run as they are
    say(ending(outcome, folder, plan.config))
    return outcome


def ending(outcome: Outcome, folder: Path, config: RunConfig) -> str:
    """Return, in words, how a run ended, where its weights are, what they are good for and how to go on."""
    seen, weights = outcome.images_seen, folder / WEIGHTS
    if outcome.finished:
        return f"{outcome.reason} after {seen:,} images; {weights}"
    if not seen:
        return (
            f"{outcome.reason} before the first update; {weights} is what the run began with. The same command goes on."
        )
    share, batch_size = seen / max(outcome.planned, 1), config.batch_size
    tokenizer = config.trains == RunConfig.trains
    flag = "--model" if tokenizer else "flowmo generate --generator"
    lines = [
        f"{outcome.reason} after {seen:,} images of {outcome.planned:,} ({share:.0%}); {weights}",
        f"It holds the averaged weights so far: good to look at ({flag}) and to start other runs from (--init).",
        "The same command goes on.",
    ]
    if not outcome.cooling:
        suggested = max(batch_size, seen // 4 // batch_size * batch_size)
        better = "its images clearer" if tokenizer else "what it generates better"
        lines[1] += f" Its learning rate has not fallen yet, which would make {better}."
        lines[2] = (
            f"The same command goes on; with --cooldown {suggested} added, it ends well over that many images more."
        )
    return "\n".join(lines)


@dataclass(frozen=True)
class Session:
    """One call of :func:`train` in one process."""

    plan: Plan[Any, Any, Any]  # what it trains
    source: Any  # what it trains on
    folder: Path  # where it writes
    options: TrainOptions  # of the call
    world: World  # the processes
    say: Callable[[str], None]  # told lines for a person; silent in all but the main process
    deadline: float  # by ``time.monotonic()``

    @contextlib.contextmanager
    def begun(self, fresh: list[Any]) -> Iterator[tuple[Run, Loader]]:
        """Give the run from the newest checkpoint, or from the model in ``fresh``, and its data; close its log after.

        The model is taken out of ``fresh``, so that nothing else keeps it alive.
        """
        run, loader, log = self.begin(fresh)
        with contextlib.closing(log) if log else contextlib.nullcontext():
            if log and self.options.bar:
                run.bar = Bar(run.config.images, run.state.images_seen, self.deadline)
                log.say = run.bar.around(log.say)
            with contextlib.closing(run.bar) if run.bar else contextlib.nullcontext():
                yield run, loader

    def begin(self, fresh: list[Any]) -> tuple[Run, Loader, Log | None]:
        """Return the run where it stands, and its data from there."""
        plan, world = self.plan, self.world
        data = plan.data_fingerprint(self.source)
        checkpoint, config, about = self.going_on()
        if checkpoint is None:
            model = fresh.pop() if fresh else plan.seeded_model()
        else:
            model = plan.stored_model(checkpoint)
            if not plan.fits(checkpoint):
                raise TrainingError(
                    f"{self.folder} holds a run of another model; give another folder, or the run's own settings"
                )
            self.say(f"resuming at {checkpoint.about['images_seen']:,} images")
            before = DataFingerprint.from_dict(checkpoint.about.get("data"))
            if before is not None and data is not None and (what := changes(before, data)):
                self.say(f"the data have changed: {what}; from here on the images come in another order")
        about |= plan.about | ({"data": data.to_dict()} if data is not None else {})
        stage, ready, state, meter = plan.assemble(model, config, world, checkpoint)
        log = None
        if world.main:
            write_config(self.folder, model.config, config)
            identity = to_dict(config) | about
            log = Log(
                self.folder,
                state.images_seen,
                self.say,
                planned=config.images,
                wandb=self.options.wandb,
                about=identity,
            )
        run = Run(
            folder=self.folder,
            config=config,
            stage=stage,
            kind=plan.kind,
            ready=ready,
            state=state,
            world=world,
            log=log,
            deadline=self.deadline,
            about=about,
            meter=meter,
        )
        if plan.cost is not None:
            run.cost = plan.cost(model, config, world.device, state.images_seen)
        self.add_validation(run, model)
        run.patience, run.rebuild_after = plan.patience(config), plan.rebuild_after(config)
        return run, plan.loader(self.source, model, config, world, state.images_seen), log

    def add_validation(self, run: Run, model: Any) -> None:
        """Give the run its validation, but where it would take too much of the time limit. All processes call it."""
        made, limit = self.plan.validation, self.options.seconds
        if isinstance(made, SizedValidation) and limit < math.inf:
            most = self.world.share(MOST_OF_LIMIT * limit)
            seconds = made.seconds(run.validator().averaged(), self.world, most) if most else math.inf
            if seconds > most:
                takes = f"about {duration(seconds)}" if most else "time, and none is left"
                self.say(
                    f"validation is left out: of {made.count:,} images it takes {takes}; it may take {duration(most)}, "
                    f"{MOST_OF_LIMIT:.0%} of what is left"
                )
                return
            run.validation_seconds = seconds
        run.validation = made(model, self.world) if made else None

    def going_on(self) -> tuple[Checkpoint | None, RunConfig, dict[str, Any]]:
        """Return the checkpoint that the run goes on from, its settings, and what its checkpoints are to say.

        The checkpoint is None at the run's beginning; the settings have the cool-down that is asked for. Raises
        TrainingError where it would be another run.
        """
        config, options, kind = self.plan.config, self.options, type(self.plan.config)
        checkpoint = read_newest(self.folder, self.world, kind)
        if checkpoint is None and options.resume:
            checkpoint = read_checkpoint(options.resume, self.world, kind)
        about: dict[str, Any] = {"command": options.command, "code": code_version()}
        if options.cooldown:
            if checkpoint is None:
                raise ConfigError(
                    f"--cooldown goes on from a checkpoint, and {self.folder} holds none; name one by --resume"
                )
            config = cooled_down(config, checkpoint, options.cooldown)
            about["cooldown"] = options.cooldown
        if config.precision == "auto":  # which the machine decides at the beginning, and never again
            before = checkpoint.train_config.precision if checkpoint is not None else config.precision
            chosen = self.world.share(config.chosen_precision) if before == "auto" else before
            config = replace(config, precision=chosen)
        if checkpoint is not None:
            check_same(checkpoint, config)
        return checkpoint, config, about


def free_memory(device: torch.device) -> None:
    """Free the memory of a run that is over, with its moments and gradients, before another is built.

    The parts of a network that are spread refer to each other, and only the garbage collector frees them.
    """
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
