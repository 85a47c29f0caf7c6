"""What all figures share: pictures, models and their names, samplers, and the result on disk."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from ...config import SamplerConfig
from ...data import Images, read_first
from ...errors import ConfigError
from ...evaluation.protocols import STANDARD
from ...evaluation.results import (
    Result,
    describe_data,
    describe_model,
    labels,
    write_result,
)
from ...experiments.measures import load_measure
from ...experiments.sampling import Measure
from ...provenance import machine
from ...tokenizer import FlowMo
from ...weights.load import PACKAGED
from .. import common

SEED_HELP = "starting noise: picture i is sampled from seed N + i"


def add_data_arguments(parser: argparse.ArgumentParser, count: int) -> None:
    shown = f"pictures to measure (default: {count})"
    common.add_data_arguments(parser, count="--count", default=count, help=shown)
    parser.add_argument(
        "--skip",
        type=common.seed,
        default=0,
        metavar="N",
        help="leave the first N pictures out, so that others choose than those that measure later (default: 0)",
    )


def add_models_arguments(parser: argparse.ArgumentParser, most: int, why: str) -> None:
    what = f"{why}, at most {most}: {common.MODEL_HELP} (default: {PACKAGED})"
    parser.add_argument("--models", nargs="+", default=[PACKAGED], metavar="MODEL", help=what)
    common.add_model_arguments(parser, flag=False)


def load_pictures(arguments: argparse.Namespace, size: int, progress: common.Progress) -> Images:
    """Return the first pictures of the data, without those that cannot be read, which ``progress`` names."""
    a = arguments
    return read_first(a.data, a.split, (size, size), progress.skip, a.count, a.skip)


def load_models(arguments: argparse.Namespace, most: int) -> list[tuple[str, FlowMo]]:
    """Return (label, model) of each of --models. Raises ConfigError when they code pictures of different sizes."""
    names = arguments.models
    if len(names) > most:
        raise ConfigError(f"--models takes at most {most} models, got {len(names)}")
    models = common.load_all(arguments)
    sizes = sorted({model.config.image_size for model in models})
    if len(sizes) > 1:
        raise ConfigError(f"the models code pictures of {sizes[0]} and {sizes[-1]} pixels, which do not compare")
    return list(zip(labels(names), models, strict=True))


def count_in_words(arguments: argparse.Namespace, pictures: Images) -> str:
    after = f" after the first {arguments.skip:,}" if arguments.skip else ""
    return f"{len(pictures.images):,} pictures{after}, {STANDARD.noise_in_words(arguments.seed)}"


def targets(arguments: argparse.Namespace) -> Path:
    """Return the file of the plot. Raises ConfigError where it or the JSON exists, unless --force is given."""
    paths = [arguments.out / f"{arguments.figure}{suffix}" for suffix in (".png", ".json")]
    common.check_targets(paths, [], arguments.force)
    return paths[0]


def finish(
    arguments: argparse.Namespace,
    pictures: Images,
    progress: common.Progress,
    models: Sequence[tuple[FlowMo, SamplerConfig | None]],
    content: dict[str, Any],
    seconds: float,
    protocol: str = STANDARD.name,
    seed: str = "",
) -> None:
    """Write the JSON and say where everything is, or print the JSON with --json. models: in the order of the names."""
    names = arguments.models if "models" in arguments else [arguments.model]
    skipped = [bad["reason"] for bad in progress.bad]
    data = describe_data(common.data_name(arguments.data), pictures.images, pictures.split, skipped)
    result = Result(
        kind=f"figure {arguments.figure}",
        protocol=protocol,
        data=data,
        models=tuple(describe_model(m, name, s) for name, (m, s) in zip(names, models, strict=True)),
        seed=seed or STANDARD.noise_in_words(arguments.seed),
        content=content,
        seconds=seconds,
        command=arguments.command_line,
        machine=machine(models[0][0].device),
    )
    path = arguments.out / f"{arguments.figure}.json"
    write_result(path, result)
    if arguments.json:
        print(path.read_text(), end="")
    else:
        print(f"\n{path.with_suffix('.png').name} and {path.name} are in {arguments.out}")


def measure(arguments: argparse.Namespace, originals: torch.Tensor, name: str) -> Measure:
    """Return :func:`load_measure`'s on the device, with the files of weights that the arguments name."""
    file = {"lpips": "lpips", "rfid": "inception", "fd_efflite0": "classifier"}[name]
    device = common.find_device(arguments.device)
    return load_measure(name, originals, device, getattr(arguments, file), arguments.batch_size)
