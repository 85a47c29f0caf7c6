"""``flowmo train``: a tokenizer from a preset, on one process or, under torchrun, on many. The same command again goes
on from the newest checkpoint in OUT, exactly."""

from __future__ import annotations

import argparse
import math
from dataclasses import fields, replace
from functools import partial
from pathlib import Path

from torch import nn

from .. import config as configs
from ..config import FlowMoConfig
from ..data import ImageSource
from ..errors import ConfigError
from ..evaluation.validation import make_validation
from ..perceptual import load_lpips
from ..presets import PRESETS, preset
from ..profiling.flops import tokenizer_cost
from ..stages import reconstruct
from ..tokenizer import FlowMo
from ..training import AutoencodeTrainConfig, Checkpoint, TokenizerPlan, TrainConfig, World, short, train
from ..training.config import STAGES
from ..training.recipes import RECIPES, check_weights, model_of
from ..training.settings import with_settings
from ..training.start import stored_model_config
from ..training.validation import IMAGES, SizedValidation, Validation
from .common import add_device_argument, load_named
from .runs import add_run_arguments, held_out, options_of, tell, training_source

FEW_IMAGES, PACKAGED_IMAGES = 5_000, 98_000  # of a run that is worth a warning; those that the packaged model saw
BATCHES = ("batch_size", "micro_batch")  # settings that fix how large a batch is
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
    parser.add_argument(
        "--model", nargs="+", action="extend", default=[], metavar="NAME=VALUE", help="model settings to change"
    )
    parser.add_argument("--init", metavar="WEIGHTS", help="start from these weights, with fresh optimizer moments")
    parser.add_argument("--freeze-encoder", action="store_true", help="train the decoder only; the code stays valid")
    parser.add_argument("--lpips", type=Path, metavar="FILE", help="weights of the perceptual network")
    add_device_argument(parser)


def run(arguments: argparse.Namespace) -> int:
    options = None if arguments.dry_run else options_of(arguments)
    begun = short.stored_recipe(arguments.out, arguments.resume)
    arguments.recipe = _recipe(arguments, begun)
    if begun is None:
        begun = short.Begun(arguments.recipe, _asked(arguments).get("images"))
    config = _train_config(arguments, begun)
    if arguments.init and arguments.model:
        raise ConfigError("--config cannot change the model that --init loads")
    if arguments.dry_run:
        print(configs.to_json(_model(arguments)[0]), configs.to_json(config), sep="\n")
        return 0
    assert options is not None
    begins_with = arguments.init or f"preset {arguments.preset}"
    tell(f"training {begins_with}, recipe {arguments.recipe}, into {arguments.out} on {arguments.device}")

    def new_model() -> FlowMo:
        model_config, weights = _model(arguments)
        return weights or FlowMo(model_config)

    def fits(checkpoint: Checkpoint) -> bool:  # of a run that began from weights, those are no longer needed
        return bool(arguments.init) or stored_model_config(checkpoint) == _model(arguments)[0]

    source = training_source(arguments)
    perceptual = load_lpips(config.perceptual_network, arguments.lpips) if config.losses.perceptual else None
    plan = TokenizerPlan(config, new_model, fits=fits, cost=tokenizer_cost, perceptual=perceptual)
    world = World.join(arguments.device)
    try:
        if arguments.recipe == short.NAME and begun.images is None:
            begun = _fitted(arguments, plan, source, world, options.seconds)
            config = _train_config(arguments, begun)
        if arguments.recipe != short.NAME:
            begun = begun._replace(recipe=arguments.recipe, images=None)
        count = begun.validations.images if arguments.validation else min(begun.validations.images, len(source))
        make = partial(_validation, arguments, config, perceptual)
        made = SizedValidation(make, count, arguments.out / IMAGES) if count else None
        plan = replace(plan, config=config, validation=made, about=begun.about)
        train(plan, source, arguments.out, options_of(arguments))  # with what is left of the time
    finally:
        world.leave()
    return 0


def _fitted(
    arguments: argparse.Namespace, plan: TokenizerPlan, source: ImageSource, world: World, seconds: float
) -> short.Begun:
    """Return a run that fits its time: length in images, batch size, validations; the same in every process."""
    if seconds == math.inf:
        tell(f"a run of {short.USUAL_IMAGES:,} images; --set images=N or --time-limit asks for another length")
        return short.Begun(short.NAME, short.USUAL_IMAGES)
    tell("measuring the speed here, to fit the run to its time")
    speed = short.measured_speed(plan, source, world, seconds)
    left = world.share(options_of(arguments).seconds)
    asked = _asked(arguments)
    batch_size = plan.config.batch_size if asked.keys() & BATCHES else short.batch_in(left, speed, world.size)
    length = short.length_in(left, speed, batch_size)
    validations = world.share(short.validations_in(seconds, speed, _model(arguments)[0].sampler))
    tell(f"{speed:.3g} images/s; {length:,} images fit the time, --set images=N asks for another number")
    if length < FEW_IMAGES:
        hours = PACKAGED_IMAGES / speed / 3600
        tell(
            f"note: so few images teach a model next to nothing, it only shows that all works; the packaged one saw "
            f"{PACKAGED_IMAGES:,}, which takes {hours:,.0f} h here"
        )
    if not validations.times:
        tell(f"too short to validate; flowmo reconstruct PICTURES --model {arguments.out} shows what it learned")
    return short.Begun(short.NAME, length, validations, batch_size)


def _validation(
    arguments: argparse.Namespace,
    config: TrainConfig | AutoencodeTrainConfig,
    perceptual: nn.Module | None,
    model: FlowMo,
    world: World,
    count: int,
    folder: Path,
) -> Validation:
    """Return what measures ``count`` held-out images, each process its share."""
    images = held_out(arguments, model.config.image_size, count)
    decode = reconstruct if config.stage == "autoencode" else None
    return make_validation(images, folder, perceptual, decode=decode, processes=world)


def _recipe(arguments: argparse.Namespace, begun: short.Begun | None) -> str:
    """Return the recipe: the one asked for, else that which the run began with, else short for a new model."""
    if arguments.recipe:
        return str(arguments.recipe)
    if begun:
        return begun.recipe if begun.recipe in (*RECIPES, short.NAME) else short.UNSCALED
    is_new = not arguments.init and not arguments.freeze_encoder
    plain_stage = arguments.stage not in (None, "mode_matching") or any(s.startswith("stage=") for s in arguments.set)
    return short.NAME if is_new and not plain_stage else short.UNSCALED


def _asked(arguments: argparse.Namespace) -> dict[str, int]:
    """Return what --set says of the length and of the batches."""
    names = ("images", *BATCHES)
    settings = [setting for setting in arguments.set if setting.partition("=")[0] in names]
    config = configs.override(TrainConfig(), settings)
    return {name: getattr(config, name) for name in {setting.partition("=")[0] for setting in settings}}


def _train_config(arguments: argparse.Namespace, begun: short.Begun) -> TrainConfig | AutoencodeTrainConfig:
    config: TrainConfig | AutoencodeTrainConfig
    if arguments.recipe == short.NAME:
        batch_size = _asked(arguments).get("batch_size", begun.batch_size)
        config = short.short(begun.images or short.USUAL_IMAGES, batch_size, begun.validations.times)
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
