"""``flowmo posttrain``: trains a tokenizer's decoder further, on its own samples (Stage 1B).

The encoder, and so every token file, stays as it is. Validation on held-out images tells whether the samples get better
or only the distance that is minimised; OUT/best.safetensors holds the best weights. The same command again goes on,
exactly.
"""

from __future__ import annotations

import argparse
from functools import partial

from ..errors import ConfigError
from ..training.configuration.recipes import post_training, published_post_training
from ..training.configuration.settings import with_settings
from .arguments import decoder_runs
from .arguments.fields import add_flag
from .arguments.runs import tell


def add_arguments(parser: argparse.ArgumentParser) -> None:
    decoder_runs.add_arguments(parser)
    add_flag(parser, "--recipe", ("published",), "settings to start from, and the raw weights; --set changes them")


def run(arguments: argparse.Namespace) -> int:
    if any(setting.startswith("stage=") and setting != "stage=mode_seeking" for setting in arguments.set):
        raise ConfigError("flowmo posttrain runs Stage 1B (stage=mode_seeking) only; use flowmo train for other stages")
    config = with_settings(published_post_training() if arguments.recipe else post_training(), arguments.set, tell)
    new_model = partial(decoder_runs.load_init, arguments, raw=bool(arguments.recipe))
    return decoder_runs.run_decoder(arguments, config, new_model)
