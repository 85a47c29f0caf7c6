"""Only regular files are opened: reading a pipe or a device named like an image would wait for ever."""

from __future__ import annotations

import os
import stat
from pathlib import Path

_KINDS = {
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


class NotRegularError(OSError):
    """What is there is neither a regular file nor a folder, and is not opened."""


def check_regular(file: str | os.PathLike[str]) -> None:
    """Raise NotRegularError for a pipe, socket or device, also behind a link.

    Raises FileNotFoundError, PermissionError or another OSError where that cannot be found out.
    """
    kind = stat.S_IFMT(os.stat(file).st_mode)
    if kind in _KINDS:
        raise NotRegularError(f"is {_KINDS[kind]}, not a regular file")


def kind_of(file: Path) -> str:
    """Return "file", "folder", or what keeps it from being read, as words for a message."""
    try:
        check_regular(file)
        return "folder" if os.path.isdir(file) else "file"
    except NotRegularError as error:
        return str(error)
    except OSError as error:
        return error.strerror or str(error)
