"""``flowmo fit-transform``: fits the best linear code of a data set, in closed form and in minutes. The model that it
writes codes and decodes like any other, and training starts from it: flowmo train DATA OUT --init start.safetensors."""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from ..config import override
from ..data import SpreadImages, open_split
from ..errors import ConfigError
from ..files import check_targets
from ..presets import preset
from ..training.fit_transform import fit_transform
from ..weights import save_model
from .fields import add_flag
from .values import positive, seed


def add_arguments(parser: argparse.ArgumentParser) -> None:
    what = "folder of images, tars, Parquet files or folder of them, hf:NAME, or .npy of images"
    parser.add_argument("data", metavar="DATA", help=what)
    parser.add_argument("--out", "-o", type=Path, required=True, metavar="FILE", help="the .safetensors file to write")
    parser.add_argument("--preset", default="flowmo-mini", help="a preset with a transform (default: %(default)s)")
    parser.add_argument(
        "--set", nargs="+", action="extend", default=[], metavar="NAME=VALUE", help="settings of the model to change"
    )
    parser.add_argument("--split", help="split of the data (default: train, where there are several)")
    add_flag(parser, "--count", positive, "images to use, spread over the data", 4_000)
    add_flag(parser, "--seed", seed, "of the transformer's weights", 0)
    parser.add_argument("--force", action="store_true", help="overwrite FILE if it exists")


def run(arguments: argparse.Namespace) -> int:
    a = arguments
    config = override(preset(a.preset), a.set)
    if config.transform is None:
        raise ConfigError(f"preset {a.preset} has no transform; use flowmo-mini")
    if a.out.suffix != ".safetensors":
        raise ConfigError(f"--out {a.out}: the name of a file of weights ends in .safetensors")
    check_targets([a.out], force=a.force)
    source, _ = open_split(a.data, a.split, "train")
    images = SpreadImages(source, config.image_size, a.count)
    start = time.perf_counter()
    model = fit_transform(config, images, a.seed)
    about = {"weights": "the best linear code", "images": 0, "fitted_on": images.used}
    save_model(model, a.out, about=about)
    seconds = time.perf_counter() - start
    print(f"{a.out}: {config.bits_per_token} bits a token, fitted on {images.used:,} images in {seconds:.0f} s")
    for name, reason in images.bad.items():
        print(f"skipped {name}: {reason}")
    return 1 if images.bad else 0
