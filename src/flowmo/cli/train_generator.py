"""``flowmo train-generator``: Stage 2, a masked transformer over the tokens of a data set, from shards that 'flowmo
tokenize' wrote or any other tokenizer's. The same command again goes on from the newest checkpoint in OUT, exactly."""

from __future__ import annotations

import argparse
import contextlib
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from .. import config as configs
from ..data import to_image
from ..errors import ConfigError, TrainingError
from ..files import replacing
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
from ..profiling.flops import matrix_ceiling, precision
from ..tokenizer import FlowMo
from ..training import Log, Run, World
from ..training.generator import RECIPES, GeneratorTrainConfig, assemble_generator, flops_per_image, held_out
from ..training.loop import PICTURES, Check, Outcome
from ..training.token_data import TokenLoader, TokenSet, read_token_set
from ..viewing import contact_sheet, write_png
from ..weights import load
from .common import MODEL_HELP, find_device
from .runs import add_loop_arguments, going_on, hold, parse_time

SHOWN = 16  # sample pictures
GROUP = "bits_per_group"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("shards", help="shard of tokens with labels, a folder of shards, or a quoted pattern")
    add_loop_arguments(parser)
    parser.add_argument("--preset", default="maskgit-mini", help=f"one of {', '.join(PRESETS)} (default: %(default)s)")
    parser.add_argument("--recipe", choices=sorted(RECIPES), help="settings to start from; --set changes them")
    parser.add_argument("--init", metavar="FILE", help="start from this generator, with fresh optimizer moments")
    parser.add_argument("--model", nargs="+", default=[], metavar="NAME=VALUE", help="generator settings to change")
    parser.add_argument("--class-names", type=Path, metavar="FILE", help="names of the labels: a line each, or JSON")
    parser.add_argument("--validation", metavar="SHARDS", help="held-out tokens to look at (default: the same shards)")
    parser.add_argument("--tokenizer", metavar="MODEL", help=f"paint sample pictures with it: {MODEL_HELP}")
    device = "cuda" if torch.cuda.is_available() else "cpu"
    parser.add_argument("--device", default=device, help="cpu, cuda, cuda:1, ... (default: %(default)s)")


def run(arguments: argparse.Namespace) -> int:
    deadline = time.monotonic() + parse_time(arguments.time_limit)
    config = configs.override(
        RECIPES[arguments.recipe]() if arguments.recipe else GeneratorTrainConfig(), arguments.set
    )
    find_device(arguments.device)
    data, model_config = _data(arguments)
    if arguments.dry_run:
        print(configs.to_json(model_config), configs.to_json(config), sep="\n")
        return 0
    validation = read_token_set(arguments.validation, data.bits_per_group) if arguments.validation else data
    if validation.layout != data.layout or validation.num_classes > model_config.num_classes:
        raise TrainingError("the held-out tokens are of another tokenizer, or of more classes, than those to train on")
    world = World.join(arguments.device)
    say: Callable[[str], None] = (lambda line: print(line, flush=True)) if world.main else (lambda line: None)
    folder: Path = arguments.out
    try:
        config.micro_batches(world.size)
        tokenizer = load(arguments.tokenizer, device=world.device) if arguments.tokenizer and world.main else None
        if tokenizer is not None:
            check_tokenizer(data.layout, tokenizer.fingerprint())
        with hold(folder, world):
            say(f"training on {data.described}")
            outcome = _train(arguments, config, model_config, world, data, (validation, tokenizer), deadline, say)
    finally:
        world.leave()
    what_now = folder / "model.safetensors" if outcome.finished else "the same command goes on"
    say(f"{outcome.reason} after {outcome.images_seen:,} images; {what_now}")
    return 0


def _train(
    arguments: argparse.Namespace,
    config: GeneratorTrainConfig,
    model_config: GeneratorConfig,
    world: World,
    data: TokenSet,
    seen_by: tuple[TokenSet, FlowMo | None],
    deadline: float,
    say: Callable[[str], None],
) -> Outcome:
    folder: Path = arguments.out
    checkpoint, config, about = going_on(arguments, config, world)
    torch.manual_seed(config.seed)
    begun = checkpoint is not None or not arguments.init
    model = Generator(model_config, data.classes) if begun else load_generator(arguments.init)
    step, ready, state, meter = assemble_generator(model, config, world, checkpoint)
    if checkpoint is not None:
        say(f"resuming at {state.images_seen:,} images")
    log = check = None
    if world.main:
        check = _check(config, *seen_by, folder / PICTURES)
        with replacing(folder / "config.json") as part:
            part.write_text(f'{{"model": {configs.to_json(model_config)},\n"train": {configs.to_json(config)}}}\n')
        log = Log(folder, state.images_seen, say, wandb=arguments.wandb, about=configs.to_dict(config) | about)
    loader = TokenLoader(data, config.batch_size // world.size, config.seed, state.images_seen, world.rank, world.size)
    cost = flops_per_image(model), matrix_ceiling(world.device, precision(config))
    with contextlib.closing(log) if log else contextlib.nullcontext():
        return Run(
            folder, config, step, ready, state, world, log, check, deadline, about, cost, meter
        ).train(loader)  # fmt: skip


def _data(arguments: argparse.Namespace) -> tuple[TokenSet, GeneratorConfig]:
    """The shards, and the generator that fits them."""
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
    """The same, for the generator that a run starts from."""
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


def _check(config: GeneratorTrainConfig, data: TokenSet, tokenizer: FlowMo | None, folder: Path) -> Check:
    """Numbers of held-out tokens, and pictures of some classes where there is a tokenizer."""

    def check(model: Any, images: int) -> dict[str, Any]:
        numbers = held_out(model, data, config)._asdict()
        if tokenizer is not None:
            count = model.config.num_classes
            labels = [i * count // SHOWN for i in range(SHOWN)] if count >= SHOWN else [i % count for i in range(SHOWN)]
            pictures = []
            for tokens in generate(model, labels, DecodeSettings(num_steps=16), list(range(SHOWN))):
                pictures += [to_image(image) for image in tokenizer.detokenize(tokens).cpu()]
            write_png(folder / f"{images:010d}.png", contact_sheet({"": pictures}))
        return numbers

    return check
