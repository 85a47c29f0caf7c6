"""What all measurements share: the model, and where the numbers go: JSON instead of the table, or in a file too."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import torch

from ...files import check_targets, write_json
from ...profiling.speed import random_model
from ...provenance import code_version
from ...tokenizer import FlowMo
from ..arguments.common import add_json_argument
from ..arguments.models import load_options
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
    """Return the model of ``--model``, or :func:`random_model` of a preset without weights, and which of both it is.

    Raises ConfigError for a model of a continuous latent.
    """
    model = random_model(arguments.model, device)
    words = "its weights" if model is None else "random weights"
    model = model or load_options(arguments, device=str(device)).load_ready([arguments.model])[0]
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
