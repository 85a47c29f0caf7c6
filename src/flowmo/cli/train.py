"""``flowmo train``: a tokenizer from a preset, on one process or, under torchrun, on many. The same command again goes
on from the newest checkpoint in OUT, exactly."""

from __future__ import annotations

import argparse
from dataclasses import fields, replace
from pathlib import Path

import torch

from .. import config as configs
from ..config import FlowMoConfig
from ..errors import ConfigError
from ..evaluation.validation import make_check
from ..perceptual import load_lpips
from ..presets import PRESETS
from ..profiling.flops import tokenizer_cost
from ..stages import reconstruct
from ..tokenizer import FlowMo
from ..training import AutoencodeTrainConfig, Checkpoint, TokenizerPlan, TrainConfig, train
from ..training.recipes import RECIPES, check_weights, model_of
from ..training.settings import with_settings
from ..training.start import stored_model_config
from ..training.validation import IMAGES, Validation
from .common import add_device_argument, load_named
from .runs import add_run_arguments, held_out, open_data, options_of, tell


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_run_arguments(parser)
    parser.add_argument("--preset", default="flowmo-mini-64", help=f"one of {', '.join(PRESETS)}")
    parser.add_argument("--recipe", choices=sorted(RECIPES), help="settings to start from; --set changes them")
    parser.add_argument("--stage", choices=("mode_matching", "autoencode"), help="Stage 1A, or a plain regression (F5)")
    parser.add_argument("--model", nargs="+", default=[], metavar="NAME=VALUE", help="model settings to change")
    parser.add_argument("--init", metavar="WEIGHTS", help="start from these weights, with fresh optimizer moments")
    parser.add_argument("--freeze-encoder", action="store_true", help="train the decoder only; the code stays valid")
    parser.add_argument("--lpips", type=Path, metavar="FILE", help="weights of the perceptual network")
    add_device_argument(parser)


def run(arguments: argparse.Namespace) -> int:
    config = _train_config(arguments)
    if arguments.init and arguments.model:
        raise ConfigError("--model cannot change the model that --init loads")
    if arguments.dry_run:
        print(configs.to_json(_model(arguments)[0]), configs.to_json(config), sep="\n")
        return 0

    def new_model() -> FlowMo:
        model_config, weights = _model(arguments)
        return weights or FlowMo(model_config)

    def fits(checkpoint: Checkpoint) -> bool:  # of a run that began from weights, those are no longer needed
        return bool(arguments.init) or stored_model_config(checkpoint) == _model(arguments)[0]

    def validation(model: FlowMo, device: torch.device) -> Validation:
        images = held_out(arguments, model.config.image_size)
        decode = reconstruct if config.stage == "autoencode" else None
        return make_check(images, arguments.out / IMAGES, perceptual, paint=decode)

    options = options_of(arguments)
    source = open_data(arguments.data, arguments.split, "train")
    perceptual = load_lpips(config.perceptual_network, arguments.lpips) if config.losses.perceptual else None
    plan = TokenizerPlan(config, new_model, validation, fits, cost=tokenizer_cost, perceptual=perceptual)
    train(plan, source, arguments.out, options)
    return 0


def _train_config(arguments: argparse.Namespace) -> TrainConfig | AutoencodeTrainConfig:
    config: TrainConfig | AutoencodeTrainConfig
    config = RECIPES[arguments.recipe](arguments.preset) if arguments.recipe else TrainConfig()
    named = [setting.partition("=")[2] for setting in arguments.set if setting.startswith("stage=")]
    stage = named[-1] if named else arguments.stage or "mode_matching"
    if stage in ("mode_seeking", "distillation"):
        command = "posttrain" if stage == "mode_seeking" else "distill"
        raise ConfigError(f"flowmo train runs no stage of the decoder alone; use flowmo {command}")
    if stage == "autoencode":
        shared = {f.name: getattr(config, f.name) for f in fields(AutoencodeTrainConfig) if f.name != "stage"}
        config = AutoencodeTrainConfig(**shared)
    if arguments.freeze_encoder:
        config = replace(config, freeze_encoder_after=0)
    return with_settings(config, arguments.set, tell)


def _model(arguments: argparse.Namespace) -> tuple[FlowMoConfig, FlowMo | None]:
    """Return the model's configuration, and the model itself where it starts from weights."""
    if arguments.preset not in PRESETS:
        raise ConfigError(f"no preset {arguments.preset!r}; there are {', '.join(PRESETS)}")
    if arguments.init:
        model = load_named(arguments, arguments.init)
        check_weights(arguments.recipe, model.config)
        return model.config, model
    return configs.override(model_of(arguments.recipe, PRESETS[arguments.preset]()), arguments.model), None
