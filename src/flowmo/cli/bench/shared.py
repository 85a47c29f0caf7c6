"""What all measurements share: the model, and where the numbers go: JSON instead of the table, or in a file too."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import torch

from ...errors import WeightsError
from ...files import check_targets, write_json
from ...presets import PRESETS, preset
from ...provenance import code_version
from ...tokenizer import FlowMo
from ...weights.load import packaged_path
from ..arguments.common import add_json_argument
from ..arguments.models import load_models
from ..printing import print_json


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add ``--json``, ``--out`` and ``--force``."""
    add_json_argument(parser)
    parser.add_argument("--out", type=Path, metavar="FILE", help="write that JSON to this file")
    parser.add_argument("--force", action="store_true", help="overwrite that file if it exists")


def check_out(arguments: argparse.Namespace) -> None:
    """Raise ConfigError, before any work, where the file of --out exists and may not be overwritten."""
    if arguments.out is not None:
        check_targets([arguments.out], force=arguments.force)


def load_any(arguments: argparse.Namespace, device: torch.device) -> tuple[FlowMo, str]:
    """Return the model of ``--model``, and that it has "its weights".

    For the name of a preset that has none it is a model with "random weights", whose speed is the same.
    Raises ConfigError for a model of a continuous latent.
    """
    name, words = arguments.model, "its weights"
    try:
        if name in PRESETS and not Path(name).exists():
            packaged_path(name)
    except WeightsError:
        torch.manual_seed(0)
        with device:
            model = FlowMo(preset(name))
        model, words = model.to(device).eval(), "random weights"
    else:
        model = load_models(arguments, [name], device=device)[0]
    model.require_tokens()
    return model, words


def finish(arguments: argparse.Namespace, content: dict[str, Any]) -> int:
    """Write and print the JSON as asked for, with the version of the code; return the exit code."""
    content = content | {"code": code_version()}
    if arguments.out is not None:
        write_json(arguments.out, content)
    if arguments.json:
        print_json(content)
    elif arguments.out is not None:
        print(f"also in {arguments.out}")
    return 0
