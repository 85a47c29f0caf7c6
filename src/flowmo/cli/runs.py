"""What the commands that train share: their flags, the folder of a run, its data and its limits (Section 4.1)."""

from __future__ import annotations

import argparse
import contextlib
import math
import re
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from .. import config as configs
from ..data import BatchLoader, ImageSource, SplitError, center_crop, open_images, shorter_side_to, to_tensor
from ..errors import ConfigError, DataError, ImageError, TrainingError
from ..files import only_one, replacing
from ..profiling.flops import utilisation_cost
from ..provenance import code_version
from ..tokenizer import FlowMo
from ..training import Checkpoint, Log, Run, TrainConfig, World, assemble, read_newest
from ..training.checkpoint import checkpoints, read_checkpoint, tidy
from ..training.loop import Check, Outcome
from ..training.start import AnyConfig, check_same, cooled_down, crop_size, stored_model_config
from .common import find_device, positive


@dataclass(frozen=True)
class Stage:
    """What a command adds to the run that all share.

    new_model: where a run begins. fits: whether the run of a checkpoint is the one that was asked for.
    perceptual: d_perc of the loss, None where it has none. check: from held-out images, ``look_at`` of them, B 3 H W in
    [-1, 1], after the first ``skip``, and d_perc on its device. about: more for the checkpoints.
    teacher: of distillation.
    """

    config: TrainConfig
    new_model: Callable[[], FlowMo]
    fits: Callable[[Checkpoint], bool]
    perceptual: Callable[[], nn.Module | None]
    check: Callable[[Tensor, nn.Module | None], Check]
    look_at: int = 32
    skip: int = 0
    about: dict[str, Any] = field(default_factory=dict)
    teacher: FlowMo | None = None


def add_run_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "data",
        help="folder of images, ImageNet's tars, WebDataset shards, Parquet files or folder of them, hf:NAME, or .npy "
        "of uint8 images",
    )
    add_loop_arguments(parser)
    parser.add_argument("--split", help="split to train on (default: train, where the data have several)")
    parser.add_argument("--validation", metavar="DATA", help="held-out images to look at (default: same data)")


def add_loop_arguments(parser: argparse.ArgumentParser) -> None:
    """What a run can be told whatever it trains on."""
    parser.add_argument("out", type=Path, help="folder of the run: checkpoints, weights, log, sample pictures")
    parser.add_argument("--set", nargs="+", default=[], metavar="NAME=VALUE", help="training settings to change")
    parser.add_argument("--resume", type=Path, metavar="CHECKPOINT", help="begin OUT from another run's checkpoint")
    parser.add_argument("--cooldown", type=positive, metavar="IMAGES", help="end with a cool-down over the next IMAGES")
    parser.add_argument("--time-limit", metavar="TIME", help="stop with a checkpoint after this long: 90m, 2h, 45s")
    parser.add_argument("--wandb", metavar="PROJECT", help="report to this project of Weights & Biases too")
    parser.add_argument("--dry-run", action="store_true", help="print the resolved configuration and stop")


def run_training(arguments: argparse.Namespace, stage: Stage) -> int:
    """All of a command after its stage is known; the exit code. What is missing is said before anything is written."""
    deadline = time.monotonic() + parse_time(arguments.time_limit)
    find_device(arguments.device)
    world = World.join(arguments.device)
    say: Callable[[str], None] = (lambda line: print(line, flush=True)) if world.main else (lambda line: None)
    folder: Path = arguments.out
    try:
        stage.config.micro_batches(world.size)  # tells early that a batch cannot be split
        source = open_data(arguments.data, arguments.split, "train")
        perceptual = stage.perceptual()
        if perceptual is not None:
            perceptual.to(world.device)
        if stage.teacher is not None:
            stage.teacher.to(world.device)
        begun = bool(checkpoints(folder)) or arguments.resume
        model = None if begun else _seeded(stage)
        with hold(folder, world):
            say(f"training on {source.describe()}")
            while (outcome := _train(arguments, stage, model, perceptual, world, source, deadline, say)).again:
                say(f"{outcome.reason} after {outcome.images_seen:,} images")
    finally:
        world.leave()
    what_now = folder / "model.safetensors" if outcome.finished else "the same command goes on"
    say(f"{outcome.reason} after {outcome.images_seen:,} images; {what_now}")
    return 0


def _train(
    arguments: argparse.Namespace,
    stage: Stage,
    model: FlowMo | None,
    perceptual: nn.Module | None,
    world: World,
    source: ImageSource,
    deadline: float,
    say: Callable[[str], None],
) -> Outcome:
    folder = arguments.out
    checkpoint, config, about = going_on(arguments, stage.config, world)
    if checkpoint is not None:
        model = FlowMo(stored_model_config(checkpoint))
        if not stage.fits(checkpoint):
            raise TrainingError(
                f"{folder} holds a run of another model; give another folder, or the run's own settings"
            )
        say(f"resuming at {checkpoint.about['images_seen']:,} images")
    elif model is None:
        model = _seeded(stage)
    about |= stage.about
    size = crop_size(model.config, config)
    step, ready, state, meter = assemble(model, config, world, perceptual, checkpoint, stage.teacher)
    log = check = None
    if world.main:
        check = stage.check(_held_out(arguments, model.config.image_size, stage), perceptual)
        with replacing(folder / "config.json") as part:
            part.write_text(f'{{"model": {configs.to_json(model.config)},\n"train": {configs.to_json(config)}}}\n')
        log = Log(folder, state.images_seen, say, wandb=arguments.wandb, about=configs.to_dict(config) | about)
    loader = BatchLoader(
        source,
        config.batch_size // world.size,
        size,
        config.seed,
        start=state.images_seen,
        flip=config.flip,
        workers=config.workers,
        rank=world.rank,
        world=world.size,
        scale_to=model.config.image_size,
    )
    cost = utilisation_cost(model.config, config, world.device, state.images_seen)
    with contextlib.closing(log) if log else contextlib.nullcontext():
        run = Run(folder, config, step, ready, state, world, log, check, deadline, about, cost, meter)
        run.patience = config.sample.patience if config.on_samples else None
        return run.train(loader)


def going_on(
    arguments: argparse.Namespace, config: AnyConfig, world: World
) -> tuple[Checkpoint | None, AnyConfig, dict[str, Any]]:
    """The checkpoint that a run goes on from, None at its beginning; its settings, with the cool-down that is asked
    for; what its checkpoints are to say. Raises TrainingError where it would be another run."""
    checkpoint = read_newest(arguments.out, world, type(config))
    if checkpoint is None and arguments.resume:
        checkpoint = read_checkpoint(arguments.resume, world, type(config))
    about = {"command": arguments.command_line, "code": code_version()}
    if arguments.cooldown:
        if checkpoint is None:
            raise ConfigError(
                f"--cooldown goes on from a checkpoint, and {arguments.out} holds none; name one by --resume"
            )
        config = cooled_down(config, checkpoint, arguments.cooldown)
        about["cooldown"] = arguments.cooldown
    if checkpoint is not None:
        check_same(checkpoint, config)
    return checkpoint, config, about


def _seeded(stage: Stage) -> FlowMo:
    torch.manual_seed(stage.config.seed)
    return stage.new_model()


@contextlib.contextmanager
def hold(folder: Path, world: World) -> Iterator[None]:
    """The run's folder for this run alone. TrainingError where another process trains there, or where a run would
    overwrite files that it has not made."""
    trouble = None
    with contextlib.ExitStack() as stack:
        if world.main:
            foreign = [name for name in ("model.safetensors", "config.json") if (folder / name).exists()]
            if foreign and not (folder / "log.jsonl").exists():
                trouble = f"{folder} holds {' and '.join(foreign)} that no run made there; give another folder"
            elif not stack.enter_context(only_one(folder / ".lock")):
                trouble = f"another process trains in {folder}; wait for it, or give another folder"
            else:
                tidy(folder)
                (folder / "log.jsonl").touch()
        trouble = world.share(trouble)
        if trouble:
            raise TrainingError(trouble)
        yield


def _held_out(arguments: argparse.Namespace, size: int, stage: Stage) -> Tensor:
    """The stage's number of images spread over the held-out data, or as many as there are, B 3 size size."""
    if arguments.validation:
        source = open_data(arguments.validation, None, "validation")
    else:
        source = open_data(arguments.data, arguments.split, "train")
    left = len(source) - stage.skip
    step = max(1, left // stage.look_at)
    chosen = range(stage.skip, stage.skip + min(left, step * stage.look_at), step)
    pictures = []
    for i in chosen:
        try:
            pictures.append(to_tensor(center_crop(shorter_side_to(source[i], size), size)))
        except ImageError as error:
            print(f"not looked at: {error}", file=sys.stderr)
    if not pictures:
        raise DataError(f"none of the pictures to look at can be read; check the data: {source.describe()}")
    return torch.stack(pictures)


def open_data(path: str, split: str | None, usual: str) -> ImageSource:
    """The split asked for; else the usual one, where the data have splits at all."""
    if split is None:
        try:
            return open_images(path, split=usual)
        except SplitError:
            pass
    return open_images(path, split=split)


def parse_time(text: str | None) -> float:
    """A time such as 90m -> seconds; None is no limit."""
    if text is None:
        return math.inf
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smh]?)", text)
    if not match:
        raise ConfigError(f"cannot read the time {text!r}; write 45s, 90m or 2h")
    return float(match[1]) * {"": 1, "s": 1, "m": 60, "h": 3600}[match[2]]
