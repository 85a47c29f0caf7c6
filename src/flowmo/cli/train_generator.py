"""``flowmo train-generator``: trains a masked transformer over the tokens of a data set (Stage 2).

The tokens come from shards that 'flowmo tokenize' wrote or any other tokenizer's. The same command again goes on from
the newest checkpoint in OUT, exactly.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from ..comparison.peers.tokenizer import PeerTokenizer, open_square
from ..config import override, to_json
from ..errors import ConfigError
from ..generation import read_class_names
from ..generation.presets import PRESETS
from ..pipelines.training_runs import train_generator
from ..tokenizer import FlowMo
from ..training import GeneratorTrainConfig
from ..training.data.generator_data import data_and_config, held_out_data
from ..training.generator import GENERATOR_RECIPES
from .arguments.common import MODEL_HELP, add_device_argument
from .arguments.fields import add_settings
from .arguments.models import load_options
from .arguments.peers import add_decoding_peer
from .arguments.runs import add_loop_arguments, options_of, tell


def add_arguments(parser: argparse.ArgumentParser) -> None:
    what = "shard of tokens with labels, a folder of shards, or a quoted pattern"
    parser.add_argument("shards", metavar="SHARDS", help=what)
    add_loop_arguments(parser)
    parser.add_argument("--preset", default="maskgit-mini", help=f"one of {', '.join(PRESETS)} (default: %(default)s)")
    recipes = sorted(GENERATOR_RECIPES)
    parser.add_argument("--recipe", choices=recipes, help="settings to start from; --set changes them")
    parser.add_argument("--init", metavar="FILE", help="start from this generator, with fresh optimizer moments")
    add_settings(parser, "--model", "generator settings to change")
    parser.add_argument("--class-names", type=Path, metavar="FILE", help="names of the labels: a line each, or JSON")
    parser.add_argument("--validation", metavar="SHARDS", help="held-out tokens to validate on (default: the same)")
    parser.add_argument("--tokenizer", metavar="MODEL", help=f"decode sample images with it: {MODEL_HELP}")
    add_decoding_peer(parser)
    add_device_argument(parser)


def run(arguments: argparse.Namespace) -> int:
    a, options = arguments, options_of(arguments)  # tells early what cannot be
    config = override(GENERATOR_RECIPES[a.recipe]() if a.recipe else GeneratorTrainConfig(), a.set)
    if a.tokenizer and a.peer:
        raise ConfigError("give either --tokenizer or --peer")
    tokenizer: FlowMo | PeerTokenizer | None = None
    if a.tokenizer:
        tokenizer = load_options(a, device="cpu").load(a.tokenizer)
        tokenizer.require_tokens()
    names = read_class_names(a.class_names) if a.class_names else None
    data, model_config = data_and_config(a.shards, a.preset, a.model, a.init, names)
    if a.dry_run:
        print(to_json(model_config), to_json(config), sep="\n")
        return 0
    held = held_out_data(a.validation, data, model_config.num_classes, bool(names)) if a.validation else data
    if a.peer:
        tokenizer = open_square(a.peer, data.layout.image_size, "cpu")
    tell(f"training {a.init or f'preset {a.preset}'} into {a.out} on {a.device}")
    train_generator(config, a.init or model_config, data, held, a.out, options, tokenizer)
    return 0
