"""Results are kept on disk as they are found, so that a killed comparison goes on where it was (beside Figure 1)."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..errors import ConfigError


class ResultStore:
    """JSON values under JSON keys, in a file to which a line each is appended.

    A key says all that its value depends on, so that nothing is ever stale; later lines replace earlier ones.
    A last line cut off by a kill is dropped, and so is any damaged one. Raises ConfigError for a pipe or the like.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.entries: dict[str, Any] = {}
        read_lines(path, self._take)

    def get(self, key: Any) -> Any:
        """Return the value of a key; None where nothing is known."""
        return self.entries.get(_text(key))

    def add(self, key: Any, value: Any) -> None:
        """Append a value, plain JSON and not None, under its key."""
        self.entries[_text(key)] = value
        append_line(self.path, [key, value])

    def _take(self, line: bytes) -> None:
        try:
            key, value = json.loads(line)
        except (ValueError, TypeError):
            return
        self.entries[_text(key)] = value


def read_lines(path: Path, take: Callable[[bytes], object]) -> None:
    """Call ``take`` with each line of a file, and then drop from it a last line that was cut off by a kill.

    There may be no such file; its folder is made. Raises ConfigError for a folder, a pipe or a device.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.exists() and not path.is_file():
        raise ConfigError(f"{path} is no plain file; remove it, or give another folder")
    whole = path.read_bytes() if path.exists() else b""
    end = whole.rfind(b"\n") + 1
    for line in whole[:end].splitlines():
        take(line)
    if end < len(whole):
        with path.open("r+b") as file:
            file.truncate(end)


def append_line(path: Path, value: Any) -> None:
    """Append a value to a file as a line of JSON."""
    with path.open("a") as file:
        file.write(json.dumps(value, allow_nan=False) + "\n")


def _text(key: Any) -> str:
    return json.dumps(key, sort_keys=True)
