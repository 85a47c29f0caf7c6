"""Where the numbers go: JSON instead of the table, or in a file too."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from ...files import write_json
from .. import common


def add_arguments(parser: argparse.ArgumentParser) -> None:
    common.add_json_argument(parser)
    parser.add_argument("--out", type=Path, metavar="FILE", help="write that JSON to this file")
    parser.add_argument("--force", action="store_true", help="overwrite that file if it exists")


def check_out(arguments: argparse.Namespace) -> None:
    """Raise ConfigError, before any work, where the file of --out exists and may not be overwritten."""
    if arguments.out is not None:
        common.check_targets([arguments.out], [], arguments.force)


def finish(arguments: argparse.Namespace, content: dict[str, Any]) -> int:
    """Write and print the JSON as asked for; the exit code."""
    if arguments.out is not None:
        write_json(arguments.out, content)
    if arguments.json:
        common.print_json(content)
    elif arguments.out is not None:
        print(f"also in {arguments.out}")
    return 0
