"""``flowmo train``: a tokenizer from a preset, on one process or, under torchrun, on many. The same command again goes
on from the newest checkpoint in OUT, exactly."""

from __future__ import annotations

import argparse
import contextlib
import math
import re
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch

from .. import config as configs
from ..config import FlowMoConfig
from ..data import BatchLoader, ImageSource, SplitError, center_crop, open_images, shorter_side_to, to_tensor
from ..errors import ConfigError, DataError, ImageError, TrainingError
from ..evaluation.check import make_check
from ..files import only_one, replacing
from ..perceptual import load_lpips
from ..presets import PRESETS
from ..provenance import code_version
from ..stages import reconstruct
from ..tokenizer import FlowMo
from ..training import Log, Run, TrainConfig, World, assemble, read_newest
from ..training.checkpoint import read_checkpoint, tidy
from ..training.cost import utilisation_cost
from ..training.loop import PICTURES, Outcome
from ..training.recipes import RECIPES, check_weights, model_of
from ..training.start import check_same, cooled_down, stored_model_config
from ..weights import load
from .common import find_device, positive


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "data",
        help="folder of images, ImageNet's tars, WebDataset shards, Parquet files or folder of them, hf:NAME, or .npy "
        "of uint8 images",
    )
    parser.add_argument("out", type=Path, help="folder of the run: checkpoints, weights, log, sample pictures")
    parser.add_argument("--preset", default="flowmo-mini-64", help=f"one of {', '.join(PRESETS)}")
    parser.add_argument("--recipe", choices=sorted(RECIPES), help="settings to start from; --set changes them")
    parser.add_argument("--stage", choices=("mode_matching", "autoencode"), help="Stage 1A, or a plain regression (F5)")
    parser.add_argument("--set", nargs="+", default=[], metavar="NAME=VALUE", help="training settings to change")
    parser.add_argument("--model", nargs="+", default=[], metavar="NAME=VALUE", help="model settings to change")
    parser.add_argument("--init", metavar="WEIGHTS", help="start from these weights, with fresh optimizer moments")
    parser.add_argument("--freeze-encoder", action="store_true", help="train the decoder only; the code stays valid")
    parser.add_argument("--resume", type=Path, metavar="CHECKPOINT", help="begin OUT from another run's checkpoint")
    parser.add_argument("--cooldown", type=positive, metavar="IMAGES", help="end with a cool-down over the next IMAGES")
    parser.add_argument("--split", help="split to train on (default: train, where the data have several)")
    parser.add_argument("--validation", metavar="DATA", help="held-out images to look at (default: same data)")
    parser.add_argument("--lpips", type=Path, metavar="FILE", help="weights of the perceptual network")
    parser.add_argument("--time-limit", metavar="TIME", help="stop with a checkpoint after this long: 90m, 2h, 45s")
    parser.add_argument("--wandb", metavar="PROJECT", help="report to this project of Weights & Biases too")
    device = "cuda" if torch.cuda.is_available() else "cpu"
    parser.add_argument("--device", default=device, help="cpu, cuda, cuda:1, ... (default: %(default)s)")
    parser.add_argument("--dry-run", action="store_true", help="print the resolved configuration and stop")


def run(arguments: argparse.Namespace) -> int:
    deadline = time.monotonic() + parse_time(arguments.time_limit)
    config = _train_config(arguments)
    if arguments.init and arguments.model:
        raise ConfigError("--model cannot change the model that --init loads")
    if arguments.dry_run:
        print(configs.to_json(_model(arguments)[0]), configs.to_json(config), sep="\n")
        return 0
    find_device(arguments.device)
    world = World.join(arguments.device)
    say: Callable[[str], None] = (lambda line: print(line, flush=True)) if world.main else (lambda line: None)
    folder: Path = arguments.out
    try:
        config.micro_batches(world.size)  # tells early that a batch cannot be split
        source = _open(arguments.data, arguments.split, "train")
        with _hold(folder, world):
            say(f"training on {source.describe()}")
            while (outcome := _train(arguments, config, world, source, deadline, say)).again:
                say(f"{outcome.reason} after {outcome.images_seen:,} images")
    finally:
        world.leave()
    what_now = folder / "model.safetensors" if outcome.finished else "the same command goes on"
    say(f"{outcome.reason} after {outcome.images_seen:,} images; {what_now}")
    return 0


def _train(
    arguments: argparse.Namespace,
    config: TrainConfig,
    world: World,
    source: ImageSource,
    deadline: float,
    say: Callable[[str], None],
) -> Outcome:
    folder: Path = arguments.out
    checkpoint = read_newest(folder, world)
    if checkpoint is None and arguments.resume:
        checkpoint = read_checkpoint(arguments.resume, world)
    about = {"command": arguments.command_line, "code": code_version()}
    if arguments.cooldown:
        if checkpoint is None:
            raise ConfigError(f"--cooldown goes on from a checkpoint, and {folder} holds none; name one by --resume")
        config = cooled_down(config, checkpoint, arguments.cooldown)
        about["cooldown"] = arguments.cooldown
    if checkpoint is not None:
        check_same(checkpoint, config)
        model = FlowMo(stored_model_config(checkpoint))
        if not arguments.init and model.config != _model(arguments)[0]:
            raise TrainingError(
                f"{folder} holds a run of another model; give another folder, or the run's own settings"
            )
        say(f"resuming at {checkpoint.about['images_seen']:,} images")
    else:
        torch.manual_seed(config.seed)
        model_config, weights = _model(arguments)
        model = weights or FlowMo(model_config)
    perceptual = None
    if config.losses.perceptual:
        perceptual = load_lpips(config.perceptual_network, arguments.lpips).to(world.device)
    step, ready, state, meter = assemble(model, config, world, perceptual, checkpoint)
    log = check = None
    if world.main:
        paint = reconstruct if config.stage == "autoencode" else None
        check = make_check(_validation(arguments, model), folder / PICTURES, perceptual, paint=paint)
        with replacing(folder / "config.json") as part:
            part.write_text(f'{{"model": {configs.to_json(model.config)},\n"train": {configs.to_json(config)}}}\n')
        log = Log(folder, state.images_seen, say, wandb=arguments.wandb, about=configs.to_dict(config) | about)
    loader = BatchLoader(
        source,
        config.batch_size // world.size,
        model.config.image_size,
        config.seed,
        start=state.images_seen,
        flip=config.flip,
        workers=config.workers,
        rank=world.rank,
        world=world.size,
    )
    cost = utilisation_cost(model.config, config, world.device)
    with contextlib.closing(log) if log else contextlib.nullcontext():
        return Run(
            folder, config, step, ready, state, world, log, check, deadline, about, cost, meter
        ).train(loader)  # fmt: skip


def _train_config(arguments: argparse.Namespace) -> TrainConfig:
    config = RECIPES[arguments.recipe](arguments.preset) if arguments.recipe else TrainConfig()
    if arguments.stage:
        config = replace(config, stage=arguments.stage)
    if arguments.freeze_encoder:
        config = replace(config, freeze_encoder_after=0)
    return configs.override(config, arguments.set)


def _model(arguments: argparse.Namespace) -> tuple[FlowMoConfig, FlowMo | None]:
    """The model's configuration, and the model itself where it starts from weights."""
    if arguments.preset not in PRESETS:
        raise ConfigError(f"no preset {arguments.preset!r}; there are {', '.join(PRESETS)}")
    if arguments.init:
        model = load(arguments.init)
        check_weights(arguments.recipe, model.config)
        return model.config, model
    return configs.override(model_of(arguments.recipe, PRESETS[arguments.preset]()), arguments.model), None


@contextlib.contextmanager
def _hold(folder: Path, world: World):  # type: ignore[no-untyped-def]
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


def _validation(arguments: argparse.Namespace, model: FlowMo, count: int = 32) -> torch.Tensor:
    size = model.config.image_size
    if arguments.validation:
        source = _open(arguments.validation, None, "validation")
    else:
        source = _open(arguments.data, arguments.split, "train")
    step = max(1, len(source) // count)
    chosen = range(0, min(len(source), step * count), step)
    pictures = []
    for i in chosen:
        try:
            pictures.append(to_tensor(center_crop(shorter_side_to(source[i], size), size)))
        except ImageError as error:
            print(f"not looked at: {error}", file=sys.stderr)
    if not pictures:
        raise DataError(f"none of the pictures to look at can be read; check the data: {source.describe()}")
    return torch.stack(pictures)


def _open(path: str, split: str | None, usual: str) -> ImageSource:
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
