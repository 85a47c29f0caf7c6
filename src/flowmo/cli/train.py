"""``flowmo train``: a tokenizer from a preset, on one process or, under torchrun, on many. The same command again goes
on from the newest checkpoint in OUT, exactly."""

from __future__ import annotations

import argparse
import math
import os
import time
from dataclasses import fields, replace
from pathlib import Path

import torch

from .. import config as configs
from ..config import FlowMoConfig
from ..data import open_split
from ..errors import ConfigError
from ..evaluation.validation import make_validation
from ..perceptual import load_lpips
from ..presets import PRESETS, preset
from ..profiling.flops import tokenizer_cost
from ..stages import reconstruct
from ..tokenizer import FlowMo
from ..training import AutoencodeTrainConfig, Checkpoint, TokenizerPlan, TrainConfig, short, train
from ..training.config import STAGES
from ..training.recipes import RECIPES, check_weights, model_of
from ..training.settings import with_settings
from ..training.start import stored_model_config
from ..training.validation import IMAGES, Validation
from .common import add_device_argument, load_named
from .runs import add_run_arguments, held_out, options_of, tell

WHOLE = [name for name, entry in STAGES.items() if not entry.config.decoder_only]
"""The stages that train encoder and decoder."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_run_arguments(parser)
    parser.add_argument("--preset", default="flowmo-mini-64", help=f"one of {', '.join(PRESETS)}")
    parser.add_argument(
        "--recipe",
        choices=[*sorted(RECIPES), short.NAME, short.UNSCALED],
        help="settings to start from; --set changes them. short, the default for a new model, fits its schedule to "
        "--time-limit or to --set images; none takes the defaults of docs/TRAINING.md",
    )
    parser.add_argument("--stage", choices=WHOLE, help="Stage 1A, or a plain regression (F5)")
    parser.add_argument("--model", nargs="+", default=[], metavar="NAME=VALUE", help="model settings to change")
    parser.add_argument("--init", metavar="WEIGHTS", help="start from these weights, with fresh optimizer moments")
    parser.add_argument("--freeze-encoder", action="store_true", help="train the decoder only; the code stays valid")
    parser.add_argument("--lpips", type=Path, metavar="FILE", help="weights of the perceptual network")
    add_device_argument(parser)


def run(arguments: argparse.Namespace) -> int:
    options = None if arguments.dry_run else options_of(arguments)
    begun = short.stored_recipe(arguments.out, arguments.resume)
    arguments.recipe = _recipe(arguments, begun)
    asked = _asked(arguments)
    length = begun[1] if begun else asked.get("images")
    config = _train_config(arguments, length)
    if arguments.init and arguments.model:
        raise ConfigError("--model cannot change the model that --init loads")
    if arguments.dry_run:
        print(configs.to_json(_model(arguments)[0]), configs.to_json(config), sep="\n")
        return 0
    assert options is not None
    scaled = arguments.recipe == short.NAME
    started = time.monotonic()
    begins_with = arguments.init or f"preset {arguments.preset}"
    tell(f"training {begins_with}, recipe {arguments.recipe}, into {arguments.out} on {arguments.device}")

    def new_model() -> FlowMo:
        model_config, weights = _model(arguments)
        return weights or FlowMo(model_config)

    def fits(checkpoint: Checkpoint) -> bool:  # of a run that began from weights, those are no longer needed
        return bool(arguments.init) or stored_model_config(checkpoint) == _model(arguments)[0]

    def validation(model: FlowMo, device: torch.device) -> Validation:
        images = held_out(arguments, model.config.image_size)
        decode = reconstruct if config.stage == "autoencode" else None
        return make_validation(images, arguments.out / IMAGES, perceptual, decode=decode)

    source = open_split(arguments.data, arguments.split, "train")[0]
    perceptual = load_lpips(config.perceptual_network, arguments.lpips) if config.losses.perceptual else None
    plan = TokenizerPlan(config, new_model, validation, fits, cost=tokenizer_cost, perceptual=perceptual)
    if scaled and length is None:
        if options.seconds < math.inf and int(os.environ.get("WORLD_SIZE", "1")) == 1:
            tell("measuring the speed here, to fit the run to its time")
            speed = short.measured_speed(plan, source, options.device, options.seconds)
            left = max(0.0, options.seconds - (time.monotonic() - started))
            length, options = short.length_in(left, speed, config.batch_size), replace(options, seconds=left)
            tell(f"{speed:.3g} images/s; {length:,} images fit the time, --set images=N asks for another number")
        else:
            length = short.USUAL_IMAGES
            tell(f"a run of {length:,} images; --set images=N, or --time-limit on one process, asks for another length")
        config = _train_config(arguments, length)
    about = {"recipe": arguments.recipe, "recipe_images": length if scaled else None}
    train(replace(plan, config=config, about=about), source, arguments.out, options)
    return 0


def _recipe(arguments: argparse.Namespace, begun: tuple[str, int | None] | None) -> str:
    """Return the recipe: the one asked for, else that which the run began with, else short for a new model."""
    if arguments.recipe:
        return str(arguments.recipe)
    if begun:
        return begun[0] if begun[0] in (*RECIPES, short.NAME) else short.UNSCALED
    is_new = not arguments.init and not arguments.freeze_encoder
    plain_stage = arguments.stage not in (None, "mode_matching") or any(s.startswith("stage=") for s in arguments.set)
    return short.NAME if is_new and not plain_stage else short.UNSCALED


def _asked(arguments: argparse.Namespace) -> dict[str, int]:
    """Return what --set says of the length and of the batch."""
    names = ("images", "batch_size")
    settings = [setting for setting in arguments.set if setting.partition("=")[0] in names]
    config = configs.override(TrainConfig(), settings)
    return {name: getattr(config, name) for name in {setting.partition("=")[0] for setting in settings}}


def _train_config(arguments: argparse.Namespace, length: int | None) -> TrainConfig | AutoencodeTrainConfig:
    config: TrainConfig | AutoencodeTrainConfig
    if arguments.recipe == short.NAME:
        config = short.short(length or short.USUAL_IMAGES, _asked(arguments).get("batch_size", short.BATCH))
    else:
        config = RECIPES[arguments.recipe](arguments.preset) if arguments.recipe in RECIPES else TrainConfig()
    named = [setting.partition("=")[2] for setting in arguments.set if setting.startswith("stage=")]
    stage = named[-1] if named else arguments.stage or "mode_matching"
    if stage in STAGES and stage not in WHOLE:
        command = "posttrain" if stage == "mode_seeking" else "distill"
        raise ConfigError(f"flowmo train runs no stage of the decoder alone; use flowmo {command}")
    if stage in WHOLE and stage != "mode_matching":
        kind = STAGES[stage].config
        own = [f.name for f in fields(kind) if f.name != "stage" and hasattr(config, f.name)]
        config = kind(**{name: getattr(config, name) for name in own})
    if arguments.freeze_encoder:
        config = replace(config, freeze_encoder_after=0)
    return with_settings(config, arguments.set, tell)


def _model(arguments: argparse.Namespace) -> tuple[FlowMoConfig, FlowMo | None]:
    """Return the model's configuration, and the model itself where it starts from weights."""
    if arguments.init:
        model = load_named(arguments, arguments.init)
        check_weights(arguments.recipe, model.config)
        return model.config, model
    return configs.override(model_of(arguments.recipe, preset(arguments.preset)), arguments.model), None
