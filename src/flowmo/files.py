"""Writing files so that a crash, a kill or a full disk never leaves half of one under its name."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def cache_folder() -> Path:
    """FLOWMO_CACHE, or ``~/.cache/flowmo``. It need not exist."""
    return Path(os.environ.get("FLOWMO_CACHE") or Path.home() / ".cache" / "flowmo").expanduser()


@contextmanager
def replacing(target: Path) -> Iterator[Path]:
    """A temporary name beside ``target`` that replaces it when the block succeeds and vanishes when it fails.
    The folder is made."""
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.name}.{secrets.token_hex(4)}.part")
    try:
        yield temporary
        os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)


def sync_folder(folder: Path) -> None:
    """Wait until a folder's entries are on the disk, so that a crash of the machine cannot undo a rename in it."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError:  # Windows opens no folders
        return
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def only_one(path: Path) -> Iterator[bool]:
    """Whether this process is the only one inside, by a lock on the file ``path`` that ends with the process."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        try:
            import fcntl
        except ImportError:  # Windows
            yield True
            return
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        except OSError:  # a file system without locks
            pass
        yield True
