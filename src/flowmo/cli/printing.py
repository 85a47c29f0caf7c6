"""What a person sees of a command: progress and bad files on stderr, tables and JSON on stdout."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from ..errors import FlowMoError
from ..files import json_text
from .plain import plain


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

    def skip(self, file: Path | str, error: FlowMoError, count: int = 1) -> None:
        """Name a file that cannot be used, and go on. count: the pictures in it."""
        self.bad_count += count
        self.bad.append({"file": str(file), "reason": str(error)})
        self.say(plain(f"skipped {error if str(file) in str(error) else f'{file}: {error}'}"))
        self.advance(count)

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
    """Print columns as wide as they need, the first to the left, the others to the right.

    A table wider than ``width`` characters comes in several, each with the first ``names`` columns, which tell the rows
    apart; of the later ones rows that have no number are left out.
    """
    widths = [max(len(row[i]) for row in [header, *rows]) for i in range(len(header))]
    blocks: list[list[int]] = [[]]
    first = widths[0] + sum(widths[k] + 2 for k in range(1, names))
    for i in range(names, len(header)):
        if blocks[-1] and first + sum(widths[k] + 2 for k in [*blocks[-1], i]) > width:
            blocks.append([])
        blocks[-1].append(i)
    for number, block in enumerate(blocks):
        shown = [row for row in rows if not number or any(row[i] not in ("-", "") for i in block)]
        for row in [[""] * len(header)] * bool(number) + [header, *shown]:
            cells = (row[i].rjust(widths[i]) for i in [*range(1, names), *block])
            print("  ".join([row[0].ljust(widths[0]), *cells]).rstrip())


def number(value: float | None, spec: str, missing: str = "-") -> str:
    """Return a number for a cell of a table; ``missing`` for None."""
    return missing if value is None else format(value, spec)


def pictures_in_words(count: int) -> str:
    """Return "1 picture", "2 pictures"."""
    return f"{count} picture{'s' * (count != 1)}"


def print_json(content: Any) -> None:
    """Print a result to stdout, with null in the place of numbers that JSON has not."""
    print(json_text(content))
