"""What all figures share: pictures, models and their names, samplers, and the result on disk."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch

from ...config import SamplerConfig
from ...data import fit_picture, open_split, to_tensor, to_uint8
from ...errors import ConfigError, DataError, ImageError
from ...evaluation.evaluator import Evaluator
from ...evaluation.protocols import STANDARD
from ...evaluation.results import (
    DataRecord,
    Result,
    describe_model,
    list_checksum,
    picture_checksums,
    short_name,
    weights_checksum,
    write_result,
)
from ...experiments.sampling import Measure
from ...metrics.features import load_classifier_features, load_inception
from ...metrics.networks import Networks
from ...perceptual import load_lpips
from ...provenance import machine
from ...tokenizer import FlowMo
from ...weights.load import PACKAGED
from .. import common

NAMES = {
    "psnr": "PSNR (dB)",
    "mse": "mean squared error (8-bit levels)",
    "lpips": "LPIPS (Alex)",
    "rfid": "rFID",
    "kid": "KID",
    "fd_efflite0": "FD-EffLite0",
    "kd_efflite0": "KD-EffLite0",
}


SEED_HELP = "starting noise: picture i is sampled from seed N + i"


class Pictures(NamedTuple):
    """images: B 3 S S in [-1, 1]. names: one an image. split: the part of the data that they are from, if any."""

    images: torch.Tensor
    names: list[str]
    split: str | None


def add_data_arguments(parser: argparse.ArgumentParser, count: int) -> None:
    parser.add_argument("data", metavar="DATA", help="folder of pictures, Parquet files, or one .npy array")
    parser.add_argument(
        "--split", metavar="NAME", help="part of the data (default: validation, or all where there are no parts)"
    )
    parser.add_argument(
        "--count", type=common.positive, default=count, metavar="N", help=f"pictures to measure (default: {count})"
    )
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


def add_weights_arguments(parser: argparse.ArgumentParser, *networks: str) -> None:
    group = parser.add_argument_group("networks that measure", "for weights where none are installed")
    for name in networks:
        group.add_argument(f"--{name.split()[0].lower()}", type=Path, metavar="FILE", help=f"weights of {name}")


def load_pictures(arguments: argparse.Namespace, size: int, progress: common.Progress) -> Pictures:
    """The first pictures of the data, without those that cannot be read, which ``progress`` names."""
    source, split = open_split(arguments.data, arguments.split, "validation", arguments.skip + arguments.count)
    images, names = [], []
    for index in range(arguments.skip, len(source)):
        try:
            images.append(to_tensor(fit_picture(source[index], size, size)))
            names.append(source.name(index))
        except ImageError as error:
            progress.skip(source.name(index), error)
    if not images:
        raise DataError(f"none of the pictures asked for can be read: {source.describe()}")
    return Pictures(torch.stack(images), names, split)


def load_models(arguments: argparse.Namespace, most: int) -> list[tuple[str, FlowMo]]:
    """(label, model) of --models; ConfigError when they code pictures of different sizes."""
    names = arguments.models
    if len(names) > most:
        raise ConfigError(f"--models takes at most {most} models, got {len(names)}")
    models = common.load_all(arguments)
    sizes = sorted({model.config.image_size for model in models})
    if len(sizes) > 1:
        raise ConfigError(f"the models code pictures of {sizes[0]} and {sizes[-1]} pixels, which do not compare")
    return list(zip(labels(names), models, strict=True))


def labels(names: list[str]) -> list[str]:
    """Short names for a plot, numbered where they are the same."""
    short = [short_name(name).removesuffix(".safetensors") for name in names]
    return [text if short.count(text) == 1 else f"{text} ({i + 1})" for i, text in enumerate(short)]


def sampler_in_words(s: SamplerConfig) -> str:
    words = f"{s.num_steps} step{'s' if s.num_steps > 1 else ''}, rho {s.rho:g}, "
    words += "Heun, " if s.solver == "heun" else ""
    return words + guidance_in_words(s)


def guidance_in_words(s: SamplerConfig) -> str:
    if s.guidance_scale == 1:
        return "no guidance"
    low, high = s.guidance_interval
    return f"guidance {s.guidance_scale:g} for t in [{low:.2g}, {high:.2g}]"


def count_in_words(arguments: argparse.Namespace, pictures: Pictures) -> str:
    after = f" after the first {arguments.skip:,}" if arguments.skip else ""
    return f"{len(pictures.images):,} pictures{after}, {STANDARD.noise_in_words(arguments.seed)}"


def measures(arguments: argparse.Namespace, originals: torch.Tensor, names: Iterable[str]) -> list[Measure]:
    """Return what measures reconstructions of the originals, N 3 H W in [-1, 1], on the device. names: "lpips", "rfid",
    "fd_efflite0". Raises WeightsError where their weights are missing."""
    device, found = common.find_device(arguments.device), []
    for name in names:
        if name == "lpips":
            networks = Networks(("lpips_alex",), {"alex": load_lpips("alex", arguments.lpips).to(device)})
        elif name == "rfid":
            networks = Networks(("rfid", "kid"), {}, {"inception": load_inception(arguments.inception).to(device)})
        else:
            classifier = load_classifier_features(arguments.classifier).to(device)
            networks = Networks(("fd_efflite0", "kd_efflite0"), {}, {"efflite0": classifier})
        evaluator = Evaluator(to_uint8(originals), networks, arguments.batch_size, device)
        found.append(_measure(evaluator, {"lpips_alex": "lpips"}))
    return found


def _measure(evaluator: Evaluator, short: dict[str, str]) -> Measure:
    """Return the evaluator's numbers under the names that figures have for them, without their errors."""

    def measure(reconstructions: torch.Tensor) -> dict[str, float]:
        numbers = evaluator.numbers(reconstructions)
        return {short.get(name, name): numbers[name] for name in evaluator.networks.metrics if name in numbers}

    return measure


def identity(arguments: argparse.Namespace, pictures: Pictures, model: FlowMo, names: Sequence[str]) -> dict[str, Any]:
    """What measured numbers belong to, as JSON data: weights, pictures, seed and the networks that measure."""
    return {
        "weights": weights_checksum(model),
        "pictures": list_checksum(picture_checksums(pictures.images)),
        "seed": arguments.seed,
        "measures": list(names),
    }


def targets(arguments: argparse.Namespace) -> Path:
    """The plot; neither it nor the JSON may exist unless --force. Raises ConfigError."""
    paths = [arguments.out / f"{arguments.figure}{suffix}" for suffix in (".png", ".json")]
    common.check_targets(paths, [], arguments.force)
    return paths[0]


def finish(
    arguments: argparse.Namespace,
    pictures: Pictures,
    progress: common.Progress,
    models: Sequence[tuple[FlowMo, SamplerConfig | None]],
    content: dict[str, Any],
    seconds: float,
    protocol: str = STANDARD.name,
    seed: str = "",
) -> None:
    """Write the JSON and say where everything is, or print the JSON with --json. models: in the order of the names."""
    names = arguments.models if "models" in arguments else [arguments.model]
    data = DataRecord(
        Path(arguments.data).name,
        list_checksum(picture_checksums(pictures.images)),
        len(pictures.images),
        (pictures.images.shape[2], pictures.images.shape[3]),
        pictures.split,
        tuple(bad["reason"] for bad in progress.bad),
    )
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
