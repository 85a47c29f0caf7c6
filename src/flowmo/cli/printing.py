"""What a person sees of a command: progress and bad files on stderr, tables and JSON on stdout."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

from ..errors import FlowMoError
from ..files import json_text
from ..text import plain, table_lines


class Progress:
    """A bar on stderr where that is a terminal, and the bad files, each named there and kept for the result."""

    def __init__(self, total: int, unit: str = "pictures") -> None:
        self.bad: list[dict[str, str]] = []
        self.bad_count = 0
        self.total, self.unit, self.bar = total, unit, None
        if sys.stderr.isatty():
            try:
                from tqdm import tqdm

                self.bar = tqdm(total=total, unit=f" {unit}", leave=False)
            except ImportError:  # a machine with the core alone
                pass

    def expect(self, total: int) -> None:
        """Set how many there are, where that is known only later."""
        self.total = total
        if self.bar is not None:
            self.bar.total = total
            self.bar.refresh()

    def advance(self, count: int = 1) -> None:
        """Move the bar on."""
        if self.bar is not None:
            self.bar.update(count)

    def skip(self, file: Path | str, error: FlowMoError, count: int = 1, once: bool = False) -> None:
        """Name a file that cannot be used, and go on. count: its pictures. once: not where it was named before."""
        self.advance(count)
        if once and any(bad["file"] == str(file) for bad in self.bad):
            return
        self.bad_count += count
        self.bad.append({"file": str(file), "reason": str(error)})
        self.say(plain(f"skipped {error if str(file) in str(error) else f'{file}: {error}'}"))

    def say(self, line: str) -> None:
        """Print a line on stderr, above the bar."""
        if self.bar is not None:
            self.bar.clear()
        print(line, file=sys.stderr, flush=True)

    def finish(self) -> int:
        """Close the bar and count the bad files; return the exit code of the command."""
        if self.bar is not None:
            self.bar.close()
        if self.bad_count:
            print(f"{self.bad_count} of {self.total} {self.unit} could not be used", file=sys.stderr)
        return 1 if self.bad else 0


def print_table(header: list[str], rows: list[list[str]], width: int = 100, names: int = 1) -> None:
    """Print a table, see :func:`table_lines`."""
    print(*table_lines(header, rows, width, names), sep="\n")


def print_json(content: Any) -> None:
    """Print a result to stdout, with null in the place of numbers that JSON has not."""
    print(json_text(content))


def is_first() -> bool:
    """Return whether this is the first of the processes that ``torchrun`` started, or the only one."""
    return os.environ.get("WORLD_SIZE", "1") == "1" or os.environ.get("RANK", "0") == "0"
