"""What all figures share: pictures, models and their names, samplers, and the result on disk."""

from __future__ import annotations

import argparse
import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import torch

from ...config import SamplerConfig, to_dict
from ...data import ImageSource, SplitError, fit_picture, open_images, to_tensor
from ...errors import ConfigError, DataError, ImageError
from ...evaluation.measures import Measure, distribution_measure, lpips_measure
from ...perceptual import load_lpips
from ...tokenizer import FlowMo
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


class Pictures(NamedTuple):
    """images: B 3 S S in [-1, 1]. names: one an image. data: where they are from, in words."""

    images: torch.Tensor
    names: list[str]
    data: str


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
        help="leave the first N pictures out, so that others choose than those that judge later (default: 0)",
    )


def add_models_argument(parser: argparse.ArgumentParser, most: int, why: str) -> None:
    parser.add_argument("--models", nargs="+", default=[], metavar="MODEL", help=f"{why} (at most {most})")


def add_interval_argument(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--interval",
        type=common.finite,
        nargs=2,
        metavar=("LOW", "HIGH"),
        help="noise levels from 0 to 1 in which guidance acts (default: the model's)",
    )


def add_weights_arguments(parser: argparse.ArgumentParser, *networks: str) -> None:
    group = parser.add_argument_group("networks that judge", "for weights where none are installed")
    for name in networks:
        group.add_argument(f"--{name.split()[0].lower()}", type=Path, metavar="FILE", help=f"weights of {name}")


def load_pictures(arguments: argparse.Namespace, size: int, progress: common.Progress) -> Pictures:
    """The first pictures of the data, without those that cannot be read, which ``progress`` names."""
    source = _open(arguments)
    images, names = [], []
    for index in range(arguments.skip, len(source)):
        try:
            images.append(to_tensor(fit_picture(source[index], size, size)))
            names.append(source.name(index))
        except ImageError as error:
            progress.skip(source.name(index), error)
    if not images:
        raise DataError(f"none of the pictures asked for can be read: {source.describe()}")
    return Pictures(torch.stack(images), names, source.describe())


def _open(arguments: argparse.Namespace) -> ImageSource:
    limit = arguments.skip + arguments.count
    if arguments.split is None:
        try:
            return open_images(arguments.data, limit, "validation")
        except SplitError:
            pass
    return open_images(arguments.data, limit, arguments.split)


def load_models(arguments: argparse.Namespace, most: int) -> list[tuple[str, FlowMo]]:
    """(label, model) of --models, or of --model; ConfigError when they code pictures of different sizes."""
    names = arguments.models or [arguments.model]
    if len(names) > most:
        raise ConfigError(f"--models takes at most {most} models, got {len(names)}")
    models = [common.load_model(argparse.Namespace(**{**vars(arguments), "model": name})) for name in names]
    sizes = sorted({model.config.image_size for model in models})
    if len(sizes) > 1:
        raise ConfigError(f"the models code pictures of {sizes[0]} and {sizes[-1]} pixels, which do not compare")
    return list(zip(labels(names), models, strict=True))


def labels(names: list[str]) -> list[str]:
    """Short names for a plot: of a file its stem, of model.safetensors its folder's; numbered where equal."""
    short = []
    for name in names:
        path = Path(name)
        stem = path.stem if path.suffix in (".safetensors", ".pth", ".pt") else path.name
        short.append(path.resolve().parent.name if stem == "model" and path.suffix else stem or name)
    return [text if short.count(text) == 1 else f"{text} ({i + 1})" for i, text in enumerate(short)]


def sampler_of(arguments: argparse.Namespace, model: FlowMo) -> SamplerConfig:
    """The model's own with what the arguments say. Raises ConfigError."""
    given = {
        "num_steps": arguments.steps,
        "rho": arguments.rho,
        "guidance_scale": arguments.guidance,
        "guidance_interval": arguments.interval and tuple(arguments.interval),
    }
    return replace(model.config.sampler, **{name: value for name, value in given.items() if value is not None})


def sampler_in_words(s: SamplerConfig) -> str:
    words = f"{s.num_steps} step{'s' if s.num_steps > 1 else ''}, rho {s.rho:g}, "
    return words + guidance_in_words(s)


def guidance_in_words(s: SamplerConfig) -> str:
    if s.guidance_scale == 1:
        return "no guidance"
    low, high = s.guidance_interval
    return f"guidance {s.guidance_scale:g} for t in [{low:.2g}, {high:.2g}]"


def count_in_words(arguments: argparse.Namespace, pictures: Pictures) -> str:
    after = f" after the first {arguments.skip:,}" if arguments.skip else ""
    return f"{len(pictures.images):,} pictures{after}, picture i from seed {arguments.seed} + i"


def measures(arguments: argparse.Namespace, originals: torch.Tensor, names: Iterable[str]) -> list[Measure]:
    """The networks asked for, on the device, bound to the originals. names: "lpips", "rfid", "fd_efflite0". Raises
    WeightsError where their weights are missing."""
    found = []
    for name in names:
        if name == "lpips":
            lpips = load_lpips("alex", arguments.lpips).to(arguments.device)
            found.append(lpips_measure(lpips, originals.to(arguments.device), arguments.batch_size))
        elif name == "rfid":
            from ...evaluation.features import load_inception

            network = load_inception(arguments.inception)
            found.append(distribution_measure(network, originals, ("rfid", "kid"), arguments.batch_size))
        else:
            from ...evaluation.features import load_classifier_features

            network = load_classifier_features(arguments.classifier)
            found.append(distribution_measure(network, originals, ("fd_efflite0", "kd_efflite0"), arguments.batch_size))
    return found


def identity(arguments: argparse.Namespace, pictures: Pictures, model: FlowMo, names: Sequence[str]) -> dict[str, Any]:
    """What measured numbers belong to, as JSON data: weights, pictures, seed and the networks that judge."""
    return {
        "weights": checksum(model.state_dict().values()),
        "pictures": checksum([pictures.images]),
        "seed": arguments.seed,
        "measures": list(names),
    }


def checksum(tensors: Iterable[torch.Tensor]) -> str:
    digest = hashlib.sha256()
    for tensor in tensors:
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def base_result(arguments: argparse.Namespace, pictures: Pictures, progress: common.Progress) -> dict[str, Any]:
    return {
        "figure": arguments.figure,
        "data": pictures.data,
        "skipped_first": arguments.skip,
        "count": len(pictures.images),
        "seed": arguments.seed,
        "bad": progress.bad,
    }


def model_result(name: str, model: FlowMo, sampler: SamplerConfig) -> dict[str, Any]:
    return {"model": name, "sampler": to_dict(sampler), "bits_per_pixel": model.config.bits_per_pixel}


def targets(arguments: argparse.Namespace) -> tuple[Path, Path]:
    """The plot and the JSON, which must not exist unless --force. Raises ConfigError."""
    paths = (arguments.out / f"{arguments.figure}.png", arguments.out / f"{arguments.figure}.json")
    common.check_targets(paths, [], arguments.force)
    return paths


def finish(arguments: argparse.Namespace, result: dict[str, Any]) -> None:
    """Write the JSON and say where everything is, or print the JSON with --json."""
    plot, path = (arguments.out / f"{arguments.figure}{suffix}" for suffix in (".png", ".json"))
    result = result | {"plot": str(plot)}
    common.write_json(path, result)
    if arguments.json:
        common.print_json(result)
    else:
        print(f"\n{plot.name} and {path.name} are in {arguments.out}")
