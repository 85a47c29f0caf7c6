"""``flowmo train``: Stage 1A from a preset, resumed by the same command."""

from __future__ import annotations

import argparse
import math
import re
import sys
from pathlib import Path
from typing import Any

import torch

from .. import config as configs
from ..config import FlowMoConfig
from ..data import ImageSource, SplitError, center_crop, open_images, shorter_side_to, to_tensor
from ..errors import ConfigError, DataError, ImageError, TrainingError
from ..evaluation.check import make_check
from ..perceptual import load_lpips
from ..presets import PRESETS
from ..tokenizer import FlowMo
from ..training import Run, TrainConfig, TrainState, mode_matching_step, read_newest, stored_config
from ..weights import load
from .common import find_device

MAY_CHANGE = {"images", "cooldown_images", "log_steps", "check_images", "checkpoint_minutes", "keep"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("data", help="folder of images, Parquet file or folder of them, or .npy of uint8 images")
    parser.add_argument("out", type=Path, help="folder of the run: checkpoints, weights, log, sample pictures")
    parser.add_argument("--preset", default="flowmo-mini-64", help=f"one of {', '.join(PRESETS)}")
    parser.add_argument("--set", nargs="+", default=[], metavar="NAME=VALUE", help="training settings to change")
    parser.add_argument("--model", nargs="+", default=[], metavar="NAME=VALUE", help="model settings to change")
    parser.add_argument("--init", metavar="WEIGHTS", help="start from these weights, with fresh optimizer moments")
    parser.add_argument("--split", help="split to train on (default: train, where the data have several)")
    parser.add_argument("--validation", metavar="DATA", help="held-out images to look at (default: same data)")
    parser.add_argument("--lpips", type=Path, metavar="FILE", help="weights of the perceptual network")
    parser.add_argument("--time-limit", metavar="TIME", help="stop with a checkpoint after this long: 90m, 2h, 45s")
    device = "cuda" if torch.cuda.is_available() else "cpu"
    parser.add_argument("--device", default=device, help="cpu, cuda, cuda:1, ... (default: %(default)s)")
    parser.add_argument("--dry-run", action="store_true", help="print the resolved configuration and stop")


def run(arguments: argparse.Namespace) -> int:
    time_limit = parse_time(arguments.time_limit)
    if arguments.preset not in PRESETS:
        raise ConfigError(f"no preset {arguments.preset!r}; there are {', '.join(PRESETS)}")
    train_config: TrainConfig = configs.override(TrainConfig(), arguments.set)
    if arguments.init and arguments.model:
        raise ConfigError("--model cannot change the model that --init loads")
    folder: Path = arguments.out
    content = read_newest(folder) if folder.is_dir() and not arguments.dry_run else None
    model: FlowMo | None = None
    if content is not None and arguments.init:
        model_config: FlowMoConfig = configs.from_json(FlowMoConfig, content["model_config"])
    elif arguments.init:
        model = load(arguments.init)
        model_config = model.config
    else:
        model_config = configs.override(PRESETS[arguments.preset](), arguments.model)
    if arguments.dry_run:
        print(configs.to_json(model_config), configs.to_json(train_config), sep="\n")
        return 0

    find_device(arguments.device)
    source = _open(arguments.data, arguments.split, "train")
    _check_folder(folder, resuming=content is not None)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "log.jsonl").touch()
    print(f"training on {source.describe()}", flush=True)
    perceptual = None
    if train_config.losses.perceptual:
        perceptual = load_lpips(train_config.perceptual_network, arguments.lpips).to(arguments.device)
    torch.manual_seed(train_config.seed)
    if content is None:
        state = TrainState.start((model or FlowMo(model_config)).to(arguments.device), train_config)
    else:
        state = _resume(content, folder, model_config, train_config, arguments.device)
    check = make_check(_validation(arguments, state.model), folder / "pictures", perceptual)
    (folder / "config.json").write_text(
        f'{{"model": {configs.to_json(state.model.config)},\n"train": {configs.to_json(train_config)}}}\n'
    )
    loss = mode_matching_step(train_config, perceptual)
    outcome = Run(folder, train_config, state, loss, check, time_limit, say=lambda line: print(line, flush=True)).train(
        source
    )
    what_now = folder / "model.safetensors" if outcome.finished else "the same command goes on"
    print(f"{outcome.reason} after {outcome.images_seen:,} images; {what_now}")
    return 0


def _resume(
    content: dict[str, Any], folder: Path, model_config: FlowMoConfig, train_config: TrainConfig, device: str
) -> TrainState:
    """The state in a checkpoint; TrainingError when it is of a run with other settings."""
    _check_same(stored_config(content), train_config, folder)
    stored_model = configs.from_json(FlowMoConfig, content["model_config"])
    if stored_model != model_config:
        raise TrainingError(f"{folder} holds a run of another model; give another folder, or the run's own settings")
    state = TrainState.start(FlowMo(stored_model).to(device), train_config)
    state.load_state_dict(content)
    print(f"resuming at {state.images_seen:,} images")
    return state


def _check_folder(folder: Path, resuming: bool) -> None:
    """TrainingError for a folder whose files a run would overwrite without having made them."""
    foreign = [name for name in ("model.safetensors", "config.json") if (folder / name).exists()]
    if foreign and not resuming and not (folder / "log.jsonl").exists():
        raise TrainingError(f"{folder} holds {' and '.join(foreign)} that no run made there; give another folder")


def _check_same(stored: TrainConfig, asked: TrainConfig, folder: Path) -> None:
    a, b = configs.to_dict(stored), configs.to_dict(asked)
    changed = [name for name in a if a[name] != b[name] and name not in MAY_CHANGE]
    if changed:
        raise TrainingError(
            f"{folder} holds a run with other settings ({', '.join(f'{n}: {a[n]} there' for n in changed)}); "
            f"give another folder, or the same settings. Only {', '.join(sorted(MAY_CHANGE))} may change"
        )


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
