"""``flowmo train``: trains a tokenizer from a preset, on one process or, under torchrun, on many.

The same command again goes on from the newest checkpoint in OUT, exactly.
"""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path
from typing import Any

from ..pipelines.training_runs import TokenizerRun, train_tokenizer
from ..presets import PRESETS
from ..training import TrainOptions, short
from ..training.configuration.recipes import RECIPES
from ..training.configuration.request import WHOLE, Request
from .arguments.common import add_device_argument
from .arguments.fields import add_flag, add_settings, fields_of
from .arguments.models import load_options
from .arguments.runs import add_run_arguments, data_of, options_of, tell


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_run_arguments(parser)
    add_flag(parser, "--preset", str, f"one of {', '.join(PRESETS)}", "flowmo-mini-64")
    parser.add_argument(
        "--recipe",
        choices=[*sorted(RECIPES), short.NAME, short.UNSCALED],
        help="settings to start from; --set changes them. short, the default for a new model, fits its schedule to "
        "--time-limit or to --set images; none takes the defaults of docs/TRAINING.md",
    )
    what = "Stage 1A (mode_matching), or a plain regression of the images (docs/TRAINING.md)"
    parser.add_argument("--stage", choices=WHOLE, help=what)
    add_settings(parser, "--model", "model settings to change")
    parser.add_argument("--init", metavar="WEIGHTS", help="start from these weights, with fresh optimizer moments")
    parser.add_argument("--freeze-encoder", action="store_true", help="train the decoder only; the code stays valid")
    parser.add_argument("--lpips", type=Path, metavar="FILE", help="weights of the perceptual network")
    add_device_argument(parser)


def run(arguments: argparse.Namespace) -> int:
    asked = _run(arguments)
    if arguments.dry_run:
        print(asked.settings(tell))
    else:
        train_tokenizer(asked, tell)
    return 0


def _run(arguments: argparse.Namespace) -> TokenizerRun:
    name = arguments.init
    init = partial(load_options(arguments, device="cpu").load, name) if name else None
    made: dict[str, Any] = {"settings": arguments.set, "init": init, "init_name": name or ""}
    request = Request(**fields_of(arguments, Request) | made)
    options = TrainOptions(resume=arguments.resume) if arguments.dry_run else options_of(arguments)
    return TokenizerRun(request, data_of(arguments), arguments.out, options, arguments.lpips)
