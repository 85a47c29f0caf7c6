"""``flowmo fit-transform``: fits the best linear code of a data set, in closed form and in minutes. The model that it
writes codes and decodes like any other, and training starts from it: flowmo train DATA OUT --init start.safetensors."""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from .. import config as configs
from ..data import SpreadImages, open_split
from ..errors import ConfigError
from ..presets import preset
from ..training.fit_transform import fit_transform
from ..weights import save_model
from . import common


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "data", help="folder of images, tars, Parquet files or folder of them, hf:NAME, or .npy of images"
    )
    parser.add_argument("--out", "-o", type=Path, required=True, metavar="FILE", help="the .safetensors file to write")
    parser.add_argument("--preset", default="flowmo-mini", help="a preset with a transform (default: %(default)s)")
    parser.add_argument(
        "--set", nargs="+", action="extend", default=[], metavar="NAME=VALUE", help="settings of the model to change"
    )
    parser.add_argument("--split", help="split of the data (default: train, where there are several)")
    parser.add_argument(
        "--count", type=common.positive, default=4_000, metavar="N", help="images to use, spread over the data (4000)"
    )
    parser.add_argument("--seed", type=common.seed, default=0, metavar="N", help="of the transformer's weights")
    parser.add_argument("--force", action="store_true", help="overwrite FILE if it exists")


def run(arguments: argparse.Namespace) -> int:
    config = configs.override(preset(arguments.preset), arguments.set)
    if config.transform is None:
        raise ConfigError(f"preset {arguments.preset} has no transform; use flowmo-mini")
    if arguments.out.suffix != ".safetensors":
        raise ConfigError(f"--out {arguments.out}: the name of a file of weights ends in .safetensors")
    common.check_targets([arguments.out], [], arguments.force)
    source, _ = open_split(arguments.data, arguments.split, "train")
    images = SpreadImages(source, config.image_size, arguments.count)
    start = time.perf_counter()
    model = fit_transform(config, images, arguments.seed)
    about = {"weights": "the best linear code", "images": 0, "fitted_on": images.used}
    save_model(model, arguments.out, about=about)
    print(
        f"{arguments.out}: {config.bits_per_token} bits a token, fitted on {images.used:,} images in "
        f"{time.perf_counter() - start:.0f} s"
    )
    for name, reason in images.bad.items():
        print(f"skipped {name}: {reason}")
    return 1 if images.bad else 0
