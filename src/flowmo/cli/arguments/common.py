"""The flags that several commands share."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any, get_args

from ...devices import AUTO, best_device, resolve_device
from ...flow import Solver
from ...image_utils.fit import FITS
from ...weights.load import PACKAGED
from .fields import add_flag
from .flags import add_pth_arguments
from .values import finite, folder, positive, rho, seed, size, steps

OUT = "flowmo-out"
OR_PNG = ", or for one picture a .png file"
DATA_HELP = "folder of pictures, tar, WebDataset shards, Parquet files or one .npy array"
MODEL_HELP = "packaged model, .safetensors file, folder of a run, checkpoint, or released .pth"
FIT_HELP = (
    "how a picture gets the model's size: crop cuts the centre out, pad keeps all of it with its edges repeated, "
    "stretch keeps all of it and loses its proportions"
)
SIZE_HELP = (
    "height and width that pictures are brought to, multiples of the model's patch (default: its own); or original: "
    "each as it is, with a model that codes any size"
)
NETWORKS = {
    "lpips": "LPIPS (Alex)",
    "lpips_alex": "LPIPS (Alex)",
    "lpips_vgg": "LPIPS (VGG)",
    "inception": "FID's Inception",
    "inception_classifier": "Inception's last layer, for the Inception Score",
    "classifier": "EfficientNet-lite0",
}
"""Networks whose files of weights can be named, by flag."""


def add_model_arguments(parser: argparse.ArgumentParser, flag: bool = True) -> None:
    """Add the arguments that say which model; flag: by --model, where the command does not name it otherwise."""
    group = parser.add_argument_group("model")
    if flag:
        add_flag(group, "--model", str, MODEL_HELP, PACKAGED, metavar="MODEL")
    add_device_argument(group)
    add_pth_arguments(group)


def add_models_arguments(parser: argparse.ArgumentParser, what: str, nargs: str = "+") -> None:
    """Add ``--models``, and the other arguments that say which models they are. what: they are for."""
    add_flag(parser, "--models", str, what, [PACKAGED], nargs=nargs, metavar="MODEL")
    add_model_arguments(parser, flag=False)


def add_device_argument(group: Any) -> None:
    """Add ``--device``, by default ``auto``; the arguments have the name of a device, never ``auto`` itself."""
    shown = f"auto, cuda, cuda:1, mps, xpu or cpu (default: auto, which is {best_device()} here)"
    group.add_argument("--device", type=resolve_device, default=AUTO, help=shown)


def add_image_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the pictures of a command, and how they get the model's size."""
    what = "picture files, folders (searched through), or quoted patterns"
    parser.add_argument("images", nargs="+", metavar="IMAGE", help=what)
    add_flag(parser, "--fit", FITS[:3], FIT_HELP, "crop")  # the fourth is that of --size original
    add_flag(parser, "--size", size, SIZE_HELP)


def add_sampling_arguments(
    parser: argparse.ArgumentParser, seed_help: str = "starting noise, the same for all pictures"
) -> None:
    """Add the settings of the sampler, and the seed."""
    group = parser.add_argument_group("sampling", "defaults are stored with the model")
    add_flag(group, "--steps", steps, "steps of the decoder: fewer are faster and blurred")
    add_flag(group, "--rho", rho, "where the steps lie: 1 evenly, more nearer the picture")
    add_flag(group, "--guidance", finite, "strength of guidance; 1 is none and faster", metavar="SCALE")
    interval = {"nargs": 2, "metavar": ("LOW", "HIGH")}
    add_flag(group, "--interval", finite, "noise levels from 0 to 1 where guidance acts", **interval)
    add_solver_argument(group)
    add_flag(group, "--seed", seed, seed_help, 0)


def add_solver_argument(group: Any, flag: str = "--solver") -> None:
    """Add the flag that chooses the solver."""
    add_flag(group, flag, get_args(Solver), "euler, or heun, which asks the decoder twice a step")


def add_output_arguments(
    parser: argparse.ArgumentParser,
    out: str | None = OUT,
    force: str = "overwrite results that exist; without it nothing is done",
    or_file: str = "",
) -> None:
    """Add ``--out`` and ``--force``.

    out: the folder where none is named; None leaves the choice to the command. or_file: what else the command takes
    there; without it the name of a file is refused.
    """
    shown = f"folder for the results, made if need be{or_file} (default: {out or OUT})"
    kind = Path if or_file else folder
    parser.add_argument("--out", type=kind, default=out and Path(out), metavar="DIR", help=shown)
    parser.add_argument("--force", action="store_true", help=force)


def add_data_arguments(
    parser: argparse.ArgumentParser, data: str | None = DATA_HELP, count: str = "--limit", **count_settings: Any
) -> None:
    """Add DATA, unless its help is None, --split, and the flag ``count`` of how many pictures.

    The default and the help of ``count`` may be others.
    """
    if data:
        parser.add_argument("data", metavar="DATA", help=data)
    parser.add_argument("--split", metavar="NAME", help="part of the data (default: validation, or all without parts)")
    add_flag(parser, count, positive, **({"help": "only the first N pictures (default: all)"} | count_settings))


def add_weights_arguments(parser: argparse.ArgumentParser, *names: str) -> None:
    """Add a flag for each network that measures, for the file of its weights: "lpips", "inception", ..."""
    group = parser.add_argument_group("networks that measure", "files of weights where none are installed")
    for name in names:
        add_flag(group, f"--{name.replace('_', '-')}", Path, f"weights of {NETWORKS[name]}")


def add_run_arguments(parser: argparse.ArgumentParser) -> None:
    """Add ``--batch-size`` and ``--json``."""
    add_flag(parser, "--batch-size", positive, "pictures at a time", 16)
    add_json_argument(parser)


def add_json_argument(parser: argparse.ArgumentParser) -> None:
    """Add ``--json``."""
    parser.add_argument("--json", action="store_true", help="print the result as JSON, and nothing else, to stdout")


def add_precision_arguments(parser: Any, of: str = "the weights", passes: str = "the model's passes") -> None:
    """Add ``--precision`` and ``--compile``."""
    shown = f"compile {passes} for whole batches; the last is filled up"
    add_flag(parser, "--precision", ("fp32", "bf16"), f"of {of}", "fp32")
    parser.add_argument("--compile", action="store_true", help=shown)
