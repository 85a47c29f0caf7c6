"""``flowmo train-generator``: Stage 2, a masked transformer over the tokens of a data set, from shards that 'flowmo
tokenize' wrote or any other tokenizer's. The same command again goes on from the newest checkpoint in OUT, exactly."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from .. import config as configs
from ..data import to_image
from ..errors import ConfigError, TrainingError
from ..generation import (
    DecodeSettings,
    Generator,
    GeneratorConfig,
    check_tokenizer,
    generate,
    load_generator,
    read_class_names,
    read_generator_about,
)
from ..generation.presets import PRESETS
from ..labels import check_same_classes
from ..profiling.flops import generator_cost
from ..tokenizer import FlowMo
from ..training import GeneratorPlan, GeneratorTrainConfig, World, train
from ..training.generator import GENERATOR_RECIPES, held_out
from ..training.token_data import TokenSet, read_token_set
from ..training.validation import IMAGES, Validation
from ..viewing import contact_sheet, write_png
from .common import MODEL_HELP, add_device_argument, load_named
from .runs import add_loop_arguments, options_of

SAMPLES = 16  # images of a contact sheet
GROUP = "bits_per_group"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("shards", help="shard of tokens with labels, a folder of shards, or a quoted pattern")
    add_loop_arguments(parser)
    parser.add_argument("--preset", default="maskgit-mini", help=f"one of {', '.join(PRESETS)} (default: %(default)s)")
    parser.add_argument(
        "--recipe", choices=sorted(GENERATOR_RECIPES), help="settings to start from; --set changes them"
    )
    parser.add_argument("--init", metavar="FILE", help="start from this generator, with fresh optimizer moments")
    parser.add_argument("--model", nargs="+", default=[], metavar="NAME=VALUE", help="generator settings to change")
    parser.add_argument("--class-names", type=Path, metavar="FILE", help="names of the labels: a line each, or JSON")
    parser.add_argument("--validation", metavar="SHARDS", help="held-out tokens to validate on (default: the same)")
    parser.add_argument("--tokenizer", metavar="MODEL", help=f"decode sample images with it: {MODEL_HELP}")
    add_device_argument(parser)


def run(arguments: argparse.Namespace) -> int:
    options = options_of(arguments)
    begin = GENERATOR_RECIPES[arguments.recipe]() if arguments.recipe else GeneratorTrainConfig()
    config = configs.override(begin, arguments.set)
    tokenizer = load_named(arguments, arguments.tokenizer) if arguments.tokenizer else None
    if tokenizer is not None:
        tokenizer.require_tokens()
    data, model_config = _data(arguments)
    if arguments.dry_run:
        print(configs.to_json(model_config), configs.to_json(config), sep="\n")
        return 0
    validation_data = read_token_set(arguments.validation, data.bits_per_group) if arguments.validation else data
    if arguments.validation and not arguments.class_names:
        check_same_classes(data.classes, validation_data.classes, f"{arguments.validation} and the shards to train on")
    if validation_data.layout != data.layout or validation_data.num_classes > model_config.num_classes:
        raise TrainingError("the held-out tokens are of another tokenizer, or of more classes, than those to train on")
    if tokenizer is not None:
        check_tokenizer(data.layout, tokenizer.fingerprint())

    def new_model() -> Generator:
        return load_generator(arguments.init) if arguments.init else Generator(model_config, data.classes)

    def validation(model: Generator, world: World) -> Validation:
        decoder = tokenizer.to(world.device) if tokenizer is not None else None
        return _validation(config, validation_data, decoder, arguments.out / IMAGES, world)

    train(GeneratorPlan(config, new_model, validation, cost=generator_cost), data, arguments.out, options)
    return 0


def _data(arguments: argparse.Namespace) -> tuple[TokenSet, GeneratorConfig]:
    """Return the shards, and the configuration of the generator that fits them."""
    if arguments.preset not in PRESETS:
        raise ConfigError(f"no preset {arguments.preset!r}; there are {', '.join(PRESETS)}")
    names = read_class_names(arguments.class_names) if arguments.class_names else None
    if arguments.init:
        return _data_of_init(arguments, names)
    wanted = [value for name, _, value in (setting.partition("=") for setting in arguments.model) if name == GROUP]
    data = read_token_set(arguments.shards, _whole(wanted[-1]) if wanted else None, names)
    config = PRESETS[arguments.preset](data.layout, data.num_classes)
    config = configs.override(config, arguments.model)
    if config.tokens != data.layout or config.num_classes < data.num_classes:
        raise ConfigError("tokens and num_classes are those of the shards; leave them out of --model")
    return data, config


def _data_of_init(arguments: argparse.Namespace, names: list[str] | None) -> tuple[TokenSet, GeneratorConfig]:
    """Return the shards, and the configuration of the generator that a run starts from."""
    if arguments.model:
        raise ConfigError("--model cannot change the generator that --init loads")
    config, classes, _ = read_generator_about(arguments.init)
    data = read_token_set(arguments.shards, config.bits_per_group, names)
    if data.layout != config.tokens:
        raise TrainingError(f"{arguments.init} was trained on tokens of another tokenizer than the shards hold")
    if data.classes != classes or data.num_classes > config.num_classes:
        raise TrainingError(
            f"{arguments.init} was trained on other classes than the shards name; where only the names differ, take "
            f"the generator's own: flowmo info {arguments.init} --json > names.json, then --class-names names.json"
        )
    return data, config


def _whole(text: str) -> int:
    if not text.isdecimal():
        raise ConfigError(f"{GROUP} must be a whole number, got {text!r}")
    return int(text)


def _validation(
    config: GeneratorTrainConfig, data: TokenSet, tokenizer: FlowMo | None, folder: Path, world: World
) -> Validation:
    """Return what measures held-out tokens, and decodes samples of some classes where there is a tokenizer; each
    process its share."""

    def validate(model: Any, images: int) -> dict[str, Any]:
        numbers = held_out(model, data, config, world=world)._asdict()
        if tokenizer is not None:
            count = model.config.num_classes
            labels = (
                [i * count // SAMPLES for i in range(SAMPLES)]
                if count >= SAMPLES
                else [i % count for i in range(SAMPLES)]
            )
            own, samples = world.part(SAMPLES), []
            for tokens in generate(model, labels[own], DecodeSettings(num_steps=16), list(range(SAMPLES))[own]):
                samples += [to_image(image) for image in tokenizer.detokenize(tokens).cpu()]
            samples = [image for each in world.gather(samples) for image in each]
            if world.main:
                write_png(folder / f"{images:010d}.png", contact_sheet({"": samples}))
        return numbers

    return validate
