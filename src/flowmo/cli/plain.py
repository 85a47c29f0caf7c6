"""Text from files on a terminal: control characters are shown instead of obeyed."""

from __future__ import annotations

import os
from typing import Any, TextIO

_LINES = {ord("\n"): "\n", ord("\t"): "\t"}
_CODES = [*range(32), *range(127, 160), *range(0x202A, 0x202F), *range(0x2066, 0x206A)]
_SHOWN = {code: f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}" for code in _CODES}


def plain(text: object) -> str:
    """Return the text in one line, with every character that a terminal would obey, or that turns its direction, as an
    escape."""
    return str(text).translate(_SHOWN)


class PlainStream:
    """A stream of text that nothing printed can make a terminal obey. keep: control characters that pass, beside the
    ends of lines and tabs."""

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


def is_first() -> bool:
    """Return whether this is the first of the processes that ``torchrun`` started, or the only one."""
    return os.environ.get("WORLD_SIZE", "1") == "1" or os.environ.get("RANK", "0") == "0"
