"""``flowmo train-generator``: Stage 2, a masked transformer over the tokens of a data set, from shards that 'flowmo
tokenize' wrote or any other tokenizer's. The same command again goes on from the newest checkpoint in OUT, exactly."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from .. import config as configs
from ..comparison.peers.tokenizer import PeerTokenizer
from ..data import to_image
from ..errors import ConfigError, TrainingError
from ..experiments.class_images import title
from ..generation import (
    DecodeSettings,
    Generator,
    check_tokenizer,
    generate,
    load_generator,
    read_class_names,
)
from ..generation.presets import PRESETS
from ..labels import check_same_classes
from ..profiling.flops import generator_cost
from ..tokenizer import FlowMo
from ..training import GeneratorPlan, GeneratorTrainConfig, World, train
from ..training.generator import GENERATOR_RECIPES, held_out
from ..training.generator_data import data_and_config
from ..training.token_data import TokenSet, read_token_set
from ..training.validation import IMAGES, SizedValidation, Validation
from ..viewing import titled_images, write_png
from .common import MODEL_HELP, add_device_argument, load_named
from .peers import add_decoding_peer, open_peer_of
from .runs import add_loop_arguments, options_of, tell

SAMPLES, HELD_OUT = 16, 256  # images of a contact sheet, and of a validation


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("shards", help="shard of tokens with labels, a folder of shards, or a quoted pattern")
    add_loop_arguments(parser)
    parser.add_argument("--preset", default="maskgit-mini", help=f"one of {', '.join(PRESETS)} (default: %(default)s)")
    parser.add_argument(
        "--recipe", choices=sorted(GENERATOR_RECIPES), help="settings to start from; --set changes them"
    )
    parser.add_argument("--init", metavar="FILE", help="start from this generator, with fresh optimizer moments")
    parser.add_argument(
        "--model", nargs="+", action="extend", default=[], metavar="NAME=VALUE", help="generator settings to change"
    )
    parser.add_argument("--class-names", type=Path, metavar="FILE", help="names of the labels: a line each, or JSON")
    parser.add_argument("--validation", metavar="SHARDS", help="held-out tokens to validate on (default: the same)")
    parser.add_argument("--tokenizer", metavar="MODEL", help=f"decode sample images with it: {MODEL_HELP}")
    add_decoding_peer(parser)
    add_device_argument(parser)


def run(arguments: argparse.Namespace) -> int:
    options_of(arguments)  # tells early what cannot be
    begin = GENERATOR_RECIPES[arguments.recipe]() if arguments.recipe else GeneratorTrainConfig()
    config = configs.override(begin, arguments.set)
    if arguments.tokenizer and arguments.peer:
        raise ConfigError("give either --tokenizer or --peer")
    tokenizer: FlowMo | PeerTokenizer | None = None
    if arguments.tokenizer:
        tokenizer = load_named(arguments, arguments.tokenizer)
        tokenizer.require_tokens()
    names = read_class_names(arguments.class_names) if arguments.class_names else None
    data, model_config = data_and_config(arguments.shards, arguments.preset, arguments.model, arguments.init, names)
    if arguments.dry_run:
        print(configs.to_json(model_config), configs.to_json(config), sep="\n")
        return 0
    validation_data = read_token_set(arguments.validation, data.bits_per_group) if arguments.validation else data
    if arguments.validation and not arguments.class_names:
        check_same_classes(data.classes, validation_data.classes, f"{arguments.validation} and the shards to train on")
    if validation_data.layout != data.layout or validation_data.num_classes > model_config.num_classes:
        raise TrainingError("the held-out tokens are of another tokenizer, or of more classes, than those to train on")
    if arguments.peer:
        tokenizer = open_peer_of(arguments.peer, data.layout.image_size, "cpu")
    if tokenizer is not None:
        check_tokenizer(data.layout, tokenizer.fingerprint())

    def new_model() -> Generator:
        return load_generator(arguments.init) if arguments.init else Generator(model_config, data.classes)

    def validation(model: Generator, world: World, count: int, folder: Path) -> Validation:
        decoder = tokenizer.to(world.device) if tokenizer is not None else None
        samples = SAMPLES if count == all_held else 1
        return _validation(config, validation_data, decoder, folder, world, count, samples)

    all_held = min(HELD_OUT, len(validation_data))
    check = SizedValidation(validation, all_held, arguments.out / IMAGES, HELD_OUT // SAMPLES)
    tell(f"training {arguments.init or f'preset {arguments.preset}'} into {arguments.out} on {arguments.device}")
    train(GeneratorPlan(config, new_model, check, cost=generator_cost), data, arguments.out, options_of(arguments))
    return 0


def _validation(
    config: GeneratorTrainConfig,
    data: TokenSet,
    tokenizer: FlowMo | PeerTokenizer | None,
    folder: Path,
    world: World,
    held: int,
    drawn: int,
) -> Validation:
    """Return what measures the tokens of ``held`` images, and decodes ``drawn`` samples of some classes where there is
    a tokenizer; each process its share."""

    def validate(model: Any, images: int) -> dict[str, Any]:
        numbers = held_out(model, data, config, held, world)._asdict()
        if tokenizer is not None:
            count = model.config.num_classes
            labels = [i * count // drawn for i in range(drawn)] if count >= drawn else [i % count for i in range(drawn)]
            own, seeds, samples = world.part(drawn), list(range(drawn)), []
            settings = DecodeSettings(num_steps=16)
            for tokens in generate(model, labels[own], settings, seeds[own]) if labels[own] else ():
                samples += [to_image(image) for image in tokenizer.detokenize(tokens).cpu()]
            samples = [image for each in world.gather(samples) for image in each]
            if world.main:
                sheet = titled_images([title(model, label) for label in labels], samples)
                write_png(folder / f"{images:010d}.png", sheet)
        return numbers

    return validate
