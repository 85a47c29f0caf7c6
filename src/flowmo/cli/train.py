"""``flowmo train``: a tokenizer from a preset, on one process or, under torchrun, on many. The same command again goes
on from the newest checkpoint in OUT, exactly."""

from __future__ import annotations

import argparse
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

from ..config import to_json
from ..evaluation.validation import make_validation
from ..perceptual import load_lpips
from ..presets import PRESETS
from ..profiling.flops import tokenizer_cost
from ..stages import reconstruct
from ..tokenizer import FlowMo
from ..training import Checkpoint, TokenizerPlan, World, short, train
from ..training.recipes import RECIPES
from ..training.request import WHOLE, Request
from ..training.start import stored_model_config
from ..training.validation import IMAGES, SizedValidation, Validation
from .common import add_device_argument
from .models import load_named
from .runs import add_run_arguments, held_out, options_of, tell, training_source


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_run_arguments(parser)
    parser.add_argument(
        "--preset", default="flowmo-mini-64", help=f"one of {', '.join(PRESETS)} (default: %(default)s)"
    )
    parser.add_argument(
        "--recipe",
        choices=[*sorted(RECIPES), short.NAME, short.UNSCALED],
        help="settings to start from; --set changes them. short, the default for a new model, fits its schedule to "
        "--time-limit or to --set images; none takes the defaults of docs/TRAINING.md",
    )
    parser.add_argument(
        "--stage",
        choices=WHOLE,
        help="Stage 1A (mode_matching), or a plain regression of the images (docs/TRAINING.md)",
    )
    parser.add_argument(
        "--model", nargs="+", action="extend", default=[], metavar="NAME=VALUE", help="model settings to change"
    )
    parser.add_argument("--init", metavar="WEIGHTS", help="start from these weights, with fresh optimizer moments")
    parser.add_argument("--freeze-encoder", action="store_true", help="train the decoder only; the code stays valid")
    parser.add_argument("--lpips", type=Path, metavar="FILE", help="weights of the perceptual network")
    add_device_argument(parser)


def run(arguments: argparse.Namespace) -> int:
    a = arguments
    options = None if a.dry_run else options_of(a)
    init = partial(load_named, a, a.init) if a.init else None
    request = Request(a.preset, a.recipe, a.stage, a.model, a.set, init, a.freeze_encoder)
    begun = request.begun(short.stored_recipe(a.out, a.resume))
    config = request.config(begun, tell)
    if options is None:
        print(to_json(request.model_config(begun.recipe)), to_json(config), sep="\n")
        return 0
    deadline = time.monotonic() + options.seconds
    tell(f"training {a.init or f'preset {a.preset}'}, recipe {begun.recipe}, into {a.out} on {a.device}")

    def fits(checkpoint: Checkpoint) -> bool:  # of a run that began from weights, those are no longer needed
        return bool(init) or stored_model_config(checkpoint) == request.model_config(begun.recipe)

    def validation(model: FlowMo, world: World, count: int, folder: Path) -> Validation:
        """Return what measures ``count`` held-out images, each process its share."""
        images = held_out(a, model.config.image_size, count)
        decode = reconstruct if config.stage == "autoencode" else None
        return make_validation(images, folder, perceptual, decode=decode, processes=world)

    source = training_source(a)
    perceptual = load_lpips(config.perceptual_network, a.lpips) if config.losses.perceptual else None
    new_model = partial(request.new_model, begun.recipe)
    plan = TokenizerPlan(config, new_model, fits=fits, cost=tokenizer_cost, perceptual=perceptual)
    world = World.join(a.device)
    try:
        if begun.recipe != short.NAME:
            begun = begun._replace(images=None)
        elif begun.images is None:
            begun = request.fitted(plan, source, world, deadline - time.monotonic(), tell)
            config = request.config(begun, tell)
            if not begun.validations.times:
                tell(f"too short to validate; flowmo reconstruct PICTURES --model {a.out} shows what it learned")
        count = begun.validations.images if a.validation else min(begun.validations.images, len(source))
        made = SizedValidation(validation, count, a.out / IMAGES) if count else None
        train(replace(plan, config=config, validation=made, about=begun.about), source, a.out, options_of(a))
    finally:
        world.leave()
    return 0
