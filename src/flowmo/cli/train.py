"""``flowmo train``: a tokenizer from a preset, on one process or, under torchrun, on many. The same command again goes
on from the newest checkpoint in OUT, exactly."""

from __future__ import annotations

import argparse
from dataclasses import replace
from functools import partial
from pathlib import Path

from torch import Tensor, nn

from .. import config as configs
from ..config import FlowMoConfig
from ..errors import ConfigError
from ..evaluation.validation import make_check
from ..perceptual import load_lpips
from ..presets import PRESETS
from ..stages import reconstruct
from ..tokenizer import FlowMo
from ..training import Checkpoint, TrainConfig
from ..training.loop import PICTURES, Check
from ..training.recipes import RECIPES, check_weights, model_of
from ..training.start import stored_model_config
from ..weights import load
from .common import add_device_argument
from .runs import Stage, add_run_arguments, run_training


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

    def perceptual() -> nn.Module | None:
        return load_lpips(config.perceptual_network, arguments.lpips) if config.losses.perceptual else None

    def check(images: Tensor, network: nn.Module | None) -> Check:
        paint = reconstruct if config.stage == "autoencode" else None
        return make_check(images, arguments.out / PICTURES, network, paint=paint)

    return run_training(arguments, Stage(config, new_model, partial(_fits, arguments), perceptual, check))


def _fits(arguments: argparse.Namespace, checkpoint: Checkpoint) -> bool:
    """Of a run that began from weights, those are no longer needed."""
    return bool(arguments.init) or stored_model_config(checkpoint) == _model(arguments)[0]


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
