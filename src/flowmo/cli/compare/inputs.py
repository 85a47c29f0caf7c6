"""What a comparison is made of: models, pictures, numbers of bytes, networks, and the coded files."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from ...codec import check_image_size
from ...comparison.codecs import COUNTED, Codec, Distance
from ...comparison.coded import Search, code_all
from ...comparison.compare import Method, check_targets, codec_methods
from ...data import fit_picture, open_split, to_tensor, to_uint8
from ...errors import ConfigError, DataError, ImageError, WeightsError
from ...evaluation.protocols import STANDARD
from ...evaluation.result_store import ResultStore
from ...evaluation.results import short_name
from ...metrics.networks import Networks, WeightFiles, load_networks
from ...metrics.table import check_metrics
from ...quantize.tokens import payload_size
from ...tokenizer import FlowMo
from .. import common

METRICS, ALWAYS = ("lpips_vgg", "rfid", "kid", "fd_efflite0"), ("psnr", "ssim", "lpips_alex")
WITH = {"rfid": "kid", "fd_efflite0": "kd_efflite0"}  # measured beside them, as few images need it
FILES = ("lpips_alex", "lpips_vgg", "inception", "classifier")
Models = list[tuple[str, FlowMo]]


class Pictures(NamedTuple):
    """images: uint8 N 3 H W. places: of each in the data. data: its name. split: the part of it that they are from, if
    any."""

    images: Tensor
    places: list[int]
    data: str
    split: str | None


def load_models(arguments: argparse.Namespace) -> Models:
    """(short name, model), numbered where names are the same. Raises WeightsError or ConfigError."""
    short = [short_name(name) for name in arguments.models]
    numbered = [text if short.count(text) == 1 else f"{text} ({i + 1})" for i, text in enumerate(short)]
    return list(zip(numbered, common.load_tokenizers(arguments), strict=True))


def picture_size(arguments: argparse.Namespace, models: Models) -> tuple[int, int]:
    """--size, or that of the models. Raises ConfigError where they differ or there are none."""
    sizes = sorted({model.config.image_size for _, model in models})
    if arguments.size is None and len(sizes) != 1:
        between = f"the models take pictures of {sizes[0]} to {sizes[-1]} pixels" if sizes else "there is no model"
        raise ConfigError(f"{between}, so say what size of pictures to compare on: --size")
    size = arguments.size or (sizes[0], sizes[0])
    for _, model in models:
        check_image_size(size, model.config)
    for config in dict.fromkeys(model.config for _, model in models):
        common.tell_other_size(size, config)
    return size


def search(arguments: argparse.Namespace, models: Models, size: tuple[int, int]) -> Search:
    """--bytes, or those of the models; --counted. Raises ConfigError."""
    own = sorted({payload_size(m.config.tokens_of(size), m.config.bits_per_token) for _, m in models})
    targets = tuple(sorted(set(arguments.bytes or own)))
    if not targets and arguments.codecs:
        raise ConfigError("there is no model to take numbers of bytes from, so say them: --bytes")
    check_targets(targets, size[0] * size[1])
    return Search(targets, COUNTED if arguments.counted == "both" else (arguments.counted,))


def load_metrics(
    arguments: argparse.Namespace, device: torch.device, size: tuple[int, int], say: Callable[[str], None]
) -> Networks:
    """Return the networks of --metrics, and of LPIPS (Alex), by which files are chosen. Those whose weights are missing
    are left out and named. Raises WeightsError."""
    files = WeightFiles(**{name: getattr(arguments, name) for name in FILES})
    names = [*ALWAYS, *arguments.metrics, *(WITH[name] for name in arguments.metrics if name in WITH)]
    networks = load_networks(check_metrics(names, 1), STANDARD.inception, min(size), device, files)
    for name, reason in networks.left_out.items():
        if name == "lpips_alex":
            raise WeightsError(f"nothing can be compared without LPIPS (Alex): {reason}")
        say(f"note: {name} is left out: {reason}")
    return networks


def nearest(networks: Networks, device: torch.device) -> Distance:
    """Return what chooses among the files of a codec: LPIPS (Alex) of images on the CPU, computed on the device."""
    alex = networks.lpips["alex"]
    return lambda images, reference: alex(images.to(device), reference.to(device)).cpu()


def load_pictures(arguments: argparse.Namespace, size: tuple[int, int], progress: common.Progress) -> Pictures:
    """Cut to the size as in the paper (C1). Those that cannot be read go to ``progress``. Raises DataError."""
    source, split = open_split(arguments.data, arguments.split, "validation", arguments.limit)
    progress.expect(len(source))
    images, places = [], []
    for place in range(len(source)):
        try:
            images.append(to_uint8(to_tensor(fit_picture(source[place], *size))))
            places.append(place)
        except ImageError as error:
            progress.skip(source.name(place), error)
    if not images:
        raise DataError(f"none of the pictures can be read: {source.describe()}")
    data = arguments.data if ":" in arguments.data else Path(arguments.data).resolve().name
    return Pictures(torch.stack(images), places, data, split)


def code(
    arguments: argparse.Namespace,
    codecs: Sequence[Codec],
    pictures: Pictures,
    wanted: Search,
    distance: Distance,
    store: ResultStore,
    progress: common.Progress,
) -> list[Method]:
    """All pictures through all codecs; says how far it is after each tenth."""
    total, done = len(codecs) * len(pictures.images), 0
    bar = common.Progress(total, "pictures coded")

    def advance(_: str) -> None:
        nonlocal done
        done += 1
        bar.advance()
        if bar.bar is None and total >= 100 and done % (total // 10) == 0:
            progress.say(f"coded {done} of {total}: {len(pictures.images)} pictures by {len(codecs)} codecs")

    try:
        found = code_all(pictures.images, codecs, wanted, distance, store, advance, arguments.workers)
    finally:
        bar.finish()
    return [method for codec in codecs for method in codec_methods(codec, found[codec.name], wanted)]
