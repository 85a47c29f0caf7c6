"""``flowmo fit-transform``: fits the best closed-form code of a data set, in minutes.

The model that it writes codes and decodes like any other, and training starts from it: flowmo train DATA OUT --init
start.safetensors.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from ..config import override
from ..fit_transform import fit_to_file
from ..presets import preset
from ..progress import Progress
from .arguments.fields import add_flag, add_settings
from .arguments.values import positive, seed


def add_arguments(parser: argparse.ArgumentParser) -> None:
    what = "folder of images, tars, Parquet files or folder of them, hf:NAME, or .npy of images"
    parser.add_argument("data", metavar="DATA", help=what)
    parser.add_argument("--out", "-o", type=Path, required=True, metavar="FILE", help="the .safetensors file to write")
    parser.add_argument("--preset", default="flowmo-mini", help="a preset with a transform (default: %(default)s)")
    add_settings(parser, "--set", "settings of the model to change")
    parser.add_argument("--split", help="split of the data (default: train, where there are several)")
    add_flag(parser, "--count", positive, "images to use, spread over the data", 4_000)
    add_flag(parser, "--seed", seed, "of the transformer's weights", 0)
    parser.add_argument("--force", action="store_true", help="overwrite FILE if it exists")


def run(arguments: argparse.Namespace) -> int:
    a = arguments
    progress = Progress(0, "images")  # a bar that goes over them three times
    config = override(preset(a.preset), a.set)
    fitted = fit_to_file(config, a.data, a.out, a.split, a.count, a.seed, a.force, progress)
    progress.finish()
    bits = fitted.model.config.bits_per_token
    print(f"{a.out}: {bits} bits a token, fitted on {fitted.used:,} images in {fitted.seconds:.0f} s")
    for name, reason in fitted.bad.items():
        print(f"skipped {name}: {reason}")
    return 1 if fitted.bad else 0
