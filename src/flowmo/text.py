"""Numbers, names and tables as text for people, which no terminal obeys whatever a file says in it."""

from __future__ import annotations

import contextlib
import math
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

from .config import SamplerConfig
from .errors import ConfigError

Table = tuple[list[str], list[list[str]]]
"""A header, and lines of as many cells."""
_LINES = {ord("\n"): "\n", ord("\t"): "\t"}
_CODES = [*range(32), *range(127, 160), *range(0x202A, 0x202F), *range(0x2066, 0x206A)]
_SHOWN = {code: f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}" for code in _CODES}


def plain(text: object) -> str:
    """Return the text in one line, with every character that a terminal would obey as an escape.

    Characters that turn the direction of text are escaped too.
    """
    return str(text).translate(_SHOWN)


class PlainStream:
    """A stream of text that nothing printed can make a terminal obey.

    keep: control characters that pass, beside the ends of lines and tabs.
    """

    def __init__(self, stream: TextIO, keep: str = "") -> None:
        self._stream = stream
        self._shown = _SHOWN | _LINES | {ord(letter): letter for letter in keep}

    def write(self, text: str) -> int:
        return self._stream.write(text.translate(self._shown))

    def writelines(self, lines: Any) -> None:
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextlib.contextmanager
def plain_output() -> Iterator[None]:
    """Print names of files without the escape sequences in them, and in any encoding; closed streams lead nowhere.

    A progress bar on stderr keeps its carriage return.
    """
    _open_closed()
    before = sys.stdout, sys.stderr
    for stream in before:  # a file name in another encoding must not end the command
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    sys.stdout, sys.stderr = PlainStream(before[0]), PlainStream(before[1], "\r")  # type: ignore[assignment]
    try:
        yield
    finally:
        sys.stdout, sys.stderr = before


def _open_closed() -> None:
    """Open streams that the caller closed to nowhere, so that no other file gets their number."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest number that is free: this one
    if sys.stdout is None:
        sys.stdout = open(1, "w", closefd=False)  # noqa: SIM115
    if sys.stderr is None:
        sys.stderr = open(2, "w", closefd=False)  # noqa: SIM115


def number(value: float | None, spec: str, missing: str = "-") -> str:
    """Return a number for a cell of a table; ``missing`` for None."""
    return missing if value is None else format(value, spec)


def images_in_words(count: int) -> str:
    """Return "1 picture", "2 pictures"."""
    return f"{count} picture{'s' * (count != 1)}"


def parse_time(text: str | None) -> float:
    """Return a time such as 90m in seconds; None is no limit. Raises ConfigError for other texts."""
    if text is None:
        return math.inf
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smh]?)", text)
    if not match:
        raise ConfigError(f"cannot read the time {text!r}; write 45s, 90m or 2h")
    return float(match[1]) * {"": 1, "s": 1, "m": 60, "h": 3600}[match[2]]


def table_lines(header: list[str], rows: list[list[str]], width: int = 100, names: int = 1) -> list[str]:
    """Return the lines of a table whose columns are as wide as they need, the first to the left, others to the right.

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
    lines = []
    for block_number, block in enumerate(blocks):
        shown = [row for row in rows if not block_number or any(row[i] not in ("-", "") for i in block)]
        for row in [[""] * len(header)] * bool(block_number) + [header, *shown]:
            cells = (row[i].rjust(widths[i]) for i in [*range(1, names), *block])
            lines.append("  ".join([row[0].ljust(widths[0]), *cells]).rstrip())
    return lines


def in_words(content: dict[str, Any], indent: str = "") -> list[str]:
    """Return JSON data as lines for people, a name and its value each; what lies inside is indented."""
    lines = []
    for key, value in content.items():
        title = indent + plain(key.replace("_", " "))
        if isinstance(value, dict) and value:
            lines += [title, *in_words(value, indent + "  ")]
        else:
            lines.append(f"{title:<20} {value_in_words(value)}")
    return lines


def value_in_words(value: Any) -> str:
    """Return a value of JSON data in words."""
    if isinstance(value, list) and value and isinstance(value[0], int):
        return " x ".join(map(str, value))
    if isinstance(value, list) and len(value) > 6:
        return f"{len(value)}, such as {', '.join(map(plain, value[:2]))}"
    if isinstance(value, list):
        return ", ".join(map(plain, value))
    if value is None or isinstance(value, bool):
        return "none" if value is None else "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.6g}"
    return f"{value:,}" if isinstance(value, int) else plain(value)


def sampler_in_words(s: SamplerConfig) -> str:
    """Return the settings of a sampler for a plot or a table."""
    words = f"{s.num_steps} step{'s' if s.num_steps > 1 else ''}, rho {s.rho:g}, "
    words += "Heun, " if s.solver == "heun" else ""
    return words + guidance_in_words(s)


def guidance_in_words(s: SamplerConfig) -> str:
    """Return the guidance of a sampler for a plot or a table."""
    if s.guidance_scale == 1:
        return "no guidance"
    low, high = s.guidance_interval
    return f"guidance {s.guidance_scale:g} for t in [{low:.2g}, {high:.2g}]"


def what_is_kept(run: Path | None) -> str:
    """Return what a command that was interrupted leaves behind, in words. run: the folder, where it trains."""
    if run is None:
        return "every result that was finished is kept, none is left half-written"
    if not any(run.glob("checkpoint-*")):
        return "nothing was trained yet, and the same command begins again"
    return f"the checkpoints in {run} are kept, and the same command goes on from the newest"
