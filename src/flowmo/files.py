"""Writing files so that a crash, a kill or a full disk never leaves half of one under its name."""

from __future__ import annotations

import errno
import json
import math
import os
import secrets
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

from filelock import FileLock, Timeout

from .errors import ConfigError


def cache_folder() -> Path:
    """Return the folder FLOWMO_CACHE, or ``~/.cache/flowmo``. It need not exist."""
    return user_path(os.environ.get("FLOWMO_CACHE") or Path("~") / ".cache" / "flowmo")


def user_path(text: str | os.PathLike[str]) -> Path:
    """Return the path that a user typed, with ~ for the home folder.

    A name such as ~x.jpg, of no user, stays itself.
    """
    return Path(os.path.expanduser(text))


def real_path(path: str | os.PathLike[str]) -> Path:
    """Return a path without links, ``.`` and ``..``.

    One that leads nowhere, or to itself, stays as it is from there on, where ``Path.resolve`` has an error of its own.
    """
    return Path(os.path.realpath(path))


@contextmanager
def replacing(target: Path) -> Iterator[Path]:
    """Yield a temporary file beside ``target`` that is renamed to it if the block succeeds, and removed if it fails.

    The folder is made.
    The file gets the mode that any new file has here, whatever the block writes it with.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    beginning = os.fsdecode(os.fsencode(target.name)[:200])  # a name may have 255 bytes, and the target's own may
    temporary = target.with_name(f".{beginning}.{secrets.token_hex(4)}.part")
    try:
        temporary.touch()
        mode = temporary.stat().st_mode & 0o777
        yield temporary
        temporary.chmod(mode)
        os.replace(temporary, target)
    except OSError as error:
        if error.errno is None and " requested and " in str(error):  # NumPy's words, without a file and a reason
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(target)) from error
        if error.filename is None and error.errno is not None:  # such as of a full disk, when bytes are written
            error.filename = str(target)
        raise
    finally:
        temporary.unlink(missing_ok=True)


def json_text(content: Any) -> str:
    """Return data as JSON text, with null for numbers that JSON cannot write, such as a loss that was not finite."""
    return json.dumps(_without_nan(content), indent=2, allow_nan=False)


def write_json(path: Path, content: Any) -> None:
    """Write data as JSON (:func:`json_text`) to a file and rename it into place."""
    with replacing(path) as part:
        part.write_text(json_text(content) + "\n")


def _without_nan(content: Any) -> Any:
    if isinstance(content, dict):
        return {name: _without_nan(value) for name, value in content.items()}
    if isinstance(content, (list, tuple)):
        return [_without_nan(value) for value in content]
    return None if isinstance(content, float) and not math.isfinite(content) else content


def save_tensors(tensors: Mapping[str, Tensor], path: Path, metadata: dict[str, str] | None = None) -> None:
    """Write a safetensors file that is the same, byte for byte, for the same content.

    The library alone writes the texts of ``metadata`` in any order.
    """
    from safetensors.torch import save_file

    save_file(dict(tensors), path, metadata=metadata)
    with path.open("r+b") as file:
        header = file.read(int.from_bytes(file.read(8), "little"))
        file.seek(8)
        file.write(_in_order(header))


def _in_order(header: bytes) -> bytes:
    content = json.loads(header)
    if "__metadata__" not in content:
        return header
    content = {"__metadata__": dict(sorted(content.pop("__metadata__").items()))} | content
    text = json.dumps(content, separators=(",", ":"), ensure_ascii=False).encode()
    return text.ljust(len(header)) if len(text) <= len(header) else header


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
    """Yield whether this process is the only one inside, by a lock on the file ``path``.

    The lock ends with the process. On a file system without locks every process gets True.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path, timeout=0)
    try:
        lock.acquire()
    except Timeout:
        yield False
        return
    except (NotImplementedError, OSError):
        yield True
        return
    try:
        yield True
    finally:
        lock.release()


def folder_in_words(folder: Path) -> str:
    """Return a folder's name for a sentence, that of the current one too."""
    return "this folder" if folder == Path() else str(folder)


def check_writable(folder: Path) -> None:
    """Raise ConfigError, before any work, where no file can be written into a folder, which need not exist yet."""
    place = folder.absolute()
    while not os.path.lexists(place):  # no error where a parent may not be looked into
        place = place.parent
    if not os.path.exists(place):
        raise ConfigError(f"{place} is a link to nothing that can be found, so no results can go into it; remove it")
    if not place.is_dir():
        raise ConfigError(f"{place} is a file, so no results can go into it; give another folder")
    if not os.access(place, os.W_OK | os.X_OK):
        raise ConfigError(f"{place} cannot be written to, so no results can go into {folder}; give another folder")


_OF_FILES = {".png", ".jpg", ".jpeg", ".webp", ".avif", ".gif", ".tif", ".tiff", ".bmp", ".svg", ".pdf", ".html"}
_OF_FILES |= {".flowmo", ".shard", ".npy", ".pth", ".pt", ".ckpt", ".tar", ".parquet"}
_OF_FILES |= {".json", ".csv", ".txt", ".npz", ".safetensors", ".zip"}


def is_file_name(out: Path) -> bool:
    """Return whether a path that results shall go to has the name of a single file and is no folder that exists."""
    return out.suffix.lower() in _OF_FILES and not out.is_dir()


def check_folder_name(out: Path, instead: str = "") -> None:
    """Raise ConfigError where the folder for results has the name of a file, in any case of its letters.

    ``instead`` ends the message with what else the command takes.
    """
    if is_file_name(out):
        raise ConfigError(
            f"{str(out)!r} is the name of a file, but the results are several files; give a folder, such as "
            f"{str(out.with_suffix(''))!r}{instead}"
        )


def single_image(out: Path, count: int) -> Path | None:
    """Return the file that ``count`` images go to where ``out`` names a file, and None where it is a folder.

    Raises ConfigError for several images, and for a file that is no PNG.
    """
    if not is_file_name(out):
        return None
    if out.suffix.lower() != ".png":
        raise ConfigError(f"images are written as PNG, not as {out.name}; give {out.stem}.png, or a folder")
    if count != 1:
        raise ConfigError(f"{count:,} images do not go into the one file {out}; give a folder, such as {out.stem}")
    return out


def check_targets(targets: Iterable[Path], sources: Iterable[Path] = (), force: bool = False) -> None:
    """Raise ConfigError, before any work and naming files, where results must not be written.

    That is where they exist already and may not be overwritten (``force``), where one would fall on a file that it is
    made from (``sources``), and where nothing can be written.
    """
    targets = list(targets)
    for folder in {path.parent for path in targets}:
        check_writable(folder)
    existing = [path for path in targets if path.exists()]
    originals = {real_path(path) for path in sources} if existing else set()
    own = [path for path in existing if real_path(path) in originals]
    if own:
        raise ConfigError(f"a result would overwrite its own source ({_some(own)}); give another --out")
    if existing and not force:
        raise ConfigError(
            f"{len(existing)} result{'s exist' if len(existing) > 1 else ' exists'} already ({_some(existing)}) and "
            "nothing was done; give another --out, or --force to overwrite"
        )


def _some(paths: list[Path], count: int = 5) -> str:
    """Return the first names of a list, and how many more there are."""
    more = f" and {len(paths) - count} more" if len(paths) > count else ""
    return ", ".join(map(str, paths[:count])) + more
