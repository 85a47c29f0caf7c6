"""``flowmo train``: trains a tokenizer from a preset, on one process or, under torchrun, on many.

The same command again goes on from the newest checkpoint in OUT, exactly.
"""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path

from ..config import to_json
from ..pipelines.training_runs import train_tokenizer
from ..presets import PRESETS
from ..training import short
from ..training.configuration.recipes import RECIPES
from ..training.configuration.request import WHOLE, Request
from .arguments.common import add_device_argument
from .arguments.fields import add_flag, add_settings, fields_of
from .arguments.models import load_named
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
    a = arguments
    options = None if a.dry_run else options_of(a)
    init = partial(load_named, a, a.init) if a.init else None
    request = Request(**fields_of(a, Request) | {"settings": a.set, "init": init, "init_name": a.init or ""})
    if options is not None:
        train_tokenizer(request, data_of(a), a.out, options, a.lpips, tell)
        return 0
    begun = request.begun(short.stored_recipe(a.out, a.resume))
    config = request.config(begun, tell)
    print(to_json(request.model_config(begun.recipe)), to_json(config), sep="\n")
    return 0
