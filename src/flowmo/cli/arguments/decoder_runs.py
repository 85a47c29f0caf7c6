"""What commands share that train the decoder of a finished tokenizer on its own samples (Section 3.3, Stage 1B; O11).

It is where they begin, their validation on held-out images, and OUT/best.safetensors.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

from ...config import to_json
from ...pipelines.training_runs import DecoderValidation, train_decoder
from ...presets import PRESETS
from ...tokenizer import FlowMo
from ...training import DistillTrainConfig, PostTrainConfig
from ...training.start import start_of
from . import common
from .fields import add_flag
from .models import load_options
from .runs import add_run_arguments, data_of, options_of, tell
from .values import positive, seed


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_run_arguments(parser)
    what = f"the tokenizer to start from: {common.MODEL_HELP}"
    parser.add_argument("--init", required=True, metavar="MODEL", help=what)
    parser.add_argument("--preset", choices=sorted(PRESETS), help="refuse weights of another configuration than this")
    held_out = parser.add_argument_group(
        "validation", "of the averaged weights, every validate_every images; rFID needs many"
    )
    add_flag(held_out, "--validation-count", positive, "held-out images", 256)
    add_flag(held_out, "--validation-skip", seed, "leave out the first N of them, kept for the end", 0)
    held_out.add_argument("--no-rfid", action="store_true", help="leave rFID out, which costs most on a CPU")
    files = parser.add_argument_group("networks", "files of weights where none are installed")
    add_flag(files, "--network", Path, "weights of the network that is minimised")
    add_flag(files, "--lpips", Path, "weights of LPIPS (Alex), for validation")
    add_flag(files, "--inception", Path, "weights of Inception, for validation")
    common.add_model_arguments(parser, flag=False)


def run_decoder(
    arguments: argparse.Namespace,
    config: PostTrainConfig | DistillTrainConfig,
    new_model: Callable[[], FlowMo],
    teacher: FlowMo | None = None,
) -> int:
    """Train after the settings are known, or print them; return the exit code."""
    a = arguments
    if a.dry_run:
        print(to_json(new_model().config), to_json(config), sep="\n")
        return 0
    tell(f"training the decoder of {a.init} into {a.out} on {a.device}")
    how = DecoderValidation(a.validation_count, a.validation_skip, not a.no_rfid, a.network, a.lpips, a.inception)
    train_decoder(config, new_model, data_of(a), a.out, options_of(a), how, teacher, tell)
    return 0


def load_init(arguments: argparse.Namespace, raw: bool = False) -> FlowMo:
    """Return the averaged weights, with which token files were made; raw ones where they are asked for (D4)."""

    def load(name: str, raw_weights: bool) -> FlowMo:
        return load_options(arguments, device="cpu", raw_weights=raw_weights).load(name)

    return start_of(arguments.init, load, arguments.raw_weights or raw, arguments.preset)
