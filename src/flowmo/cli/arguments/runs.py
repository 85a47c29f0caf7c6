"""What the commands that train share: their flags, their data, and how they read them (Section 4.1)."""

from __future__ import annotations

import argparse
import sys
import time
from functools import lru_cache
from pathlib import Path

from ...devices import usable_device
from ...text import parse_time
from ...training import TrainOptions
from ...training.data.image_data import ImageData
from ..printing import is_first
from .fields import add_settings, fields_of
from .values import folder, positive


def add_run_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "data",
        metavar="DATA",
        help="folder of images, ImageNet's tars, WebDataset shards, Parquet files or folder of them, hf:NAME, or .npy "
        "of uint8 images",
    )
    add_loop_arguments(parser)
    parser.add_argument("--split", help="split to train on (default: train, where the data have several)")
    parser.add_argument("--validation", metavar="DATA", help="held-out images to validate on (default: same data)")


def add_loop_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what a run can be told whatever it trains on."""
    what = "folder of the run: checkpoints, weights, log, sample pictures"
    parser.add_argument("out", type=folder, metavar="OUT", help=what)
    add_settings(parser, "--set", "training settings to change, see docs/TRAINING.md")
    parser.add_argument("--resume", type=Path, metavar="CHECKPOINT", help="begin OUT from another run's checkpoint")
    parser.add_argument("--cooldown", type=positive, metavar="IMAGES", help="end with a cool-down over the next IMAGES")
    parser.add_argument(
        "--time-limit",
        metavar="TIME",
        help="stop with a checkpoint after this long: 90m, 2h, 45s; a number alone is seconds",
    )
    parser.add_argument("--wandb", metavar="PROJECT", help="report to this project of Weights & Biases too")
    parser.add_argument("--dry-run", action="store_true", help="print the resolved configuration and stop")


def options_of(arguments: argparse.Namespace) -> TrainOptions:
    """Return how the run is to go; its time limit counts from the start of the command.

    Raises ConfigError for a device that cannot be used here, or a time that cannot be read.
    """
    seconds = max(0.0, parse_time(arguments.time_limit) - (time.monotonic() - arguments.began))
    if (arguments.time_limit or "")[-1:].isdigit():
        tell_seconds(arguments.time_limit)
    usable_device(arguments.device)
    return TrainOptions(
        arguments.device,
        seconds,
        resume=arguments.resume,
        cooldown=arguments.cooldown,
        wandb=arguments.wandb,
        bar=True,
        command=arguments.command_line,
    )


def data_of(arguments: argparse.Namespace) -> ImageData:
    """Return the images to train and to validate on."""
    return ImageData(**fields_of(arguments, ImageData))


def tell(line: str) -> None:
    """Print a note for a person to stderr at once, in the first of several processes."""
    if is_first():
        print(line, file=sys.stderr, flush=True)


@lru_cache
def tell_seconds(text: str) -> None:
    """Say, once, how a time without a unit is understood."""
    tell(f"--time-limit {text} is {text} seconds; write {text}m for minutes, {text}h for hours")
