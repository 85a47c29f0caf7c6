"""What a person sees of a command on stdout: tables and JSON."""

from __future__ import annotations

import os
from typing import Any

from ..files import json_text
from ..text import table_lines


def print_table(header: list[str], rows: list[list[str]], width: int = 100, names: int = 1) -> None:
    """Print a table, see :func:`table_lines`."""
    print(*table_lines(header, rows, width, names), sep="\n")


def print_json(content: Any) -> None:
    """Print a result to stdout, with null in the place of numbers that JSON has not."""
    print(json_text(content))


def is_first() -> bool:
    """Return whether this is the first of the processes that ``torchrun`` started, or the only one."""
    return os.environ.get("WORLD_SIZE", "1") == "1" or os.environ.get("RANK", "0") == "0"
