"""What the commands write: one name a result, with the sub-folders of what was given, never twice the same."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from ..errors import DataError, TokenFileError
from .listing import list_files
from .splits import several_splits, split_folders

TOKEN_SUFFIX = ".flowmo"
MAX_PATH = 900
"""Bytes of a result's path below the folder for results; some systems take no more than 1,024 in all."""


def relative_names(arguments: Sequence[str], paths: Sequence[Path]) -> list[Path]:
    """Return each path as seen from the argument that found it.

    Below a folder or a pattern's fixed part the sub-folders stay; a file that was named itself is its name alone.
    """
    roots = [(Path(text), _root(text)) for text in map(os.path.expanduser, arguments)]

    def name(path: Path) -> Path:
        for given, root in roots:
            if path == given:
                break
            if root is not None and path.is_relative_to(root) and ".." not in path.relative_to(root).parts:
                return path.relative_to(root)
        return Path(path.name)

    return [name(path) for path in paths]


def safe_name(text: str) -> Path:
    """Return a name from an untrusted file as a relative path that stays below the folder it is joined to.

    Half a letter (a lone surrogate) becomes _, but for those that stand for bytes in the names of a file system.
    """
    parts = [re.sub(r'[\x00-\x1f:*?"<>|\ud800-\udc7f\udd00-\udfff]', "_", part) for part in re.split(r"[/\\]", text)]
    return Path(*[part for part in parts if part not in ("", ".", "..")] or ["unnamed"])


def output_stems(names: Iterable[Path], suffixes: Sequence[str], reserved: Iterable[str] = ()) -> list[Path]:
    """Return relative paths to which each of ``suffixes`` is added.

    No result falls on another or on ``reserved``.

    The suffix of a name is dropped where that is free (``a.jpg`` -> ``a``), else kept (``a.png``), else a number is
    added (``a.png-2``). Letter case alone does not tell names apart, as on some file systems. No result takes the name
    of a folder that another one lies in. What a file system would not take is shortened: a long part at its end, and of
    very many folders the last ones are left out.
    """
    names = [_shortened(name, suffixes) for name in names]
    taken = {text.casefold() for text in reserved}
    folders = {name.parent for name in names}
    taken |= {above.as_posix().casefold() for folder in folders for above in (folder, *folder.parents)}
    stems = []
    for name in names:
        number = 1
        candidates = [name.with_suffix(""), name]
        while True:
            stem = candidates.pop(0) if candidates else name.with_name(f"{name.name}-{(number := number + 1)}")
            results = {f"{stem.as_posix()}{suffix}".casefold() for suffix in suffixes}
            if not results & taken:
                break
        taken |= results
        stems.append(stem)
    return stems


def _shortened(name: Path, suffixes: Sequence[str]) -> Path:
    room = 255 - max((len(suffix) for suffix in suffixes), default=0) - len("-9999999")  # bytes of a name on disk
    parts = [os.fsencode(part)[:room] for part in name.parts]
    left = MAX_PATH - 255
    folders = [part for part in parts[:-1] if (left := left - len(part) - 1) >= 0]
    return Path(*map(os.fsdecode, [*folders, *parts[-1:]]))


def class_labels(names: Sequence[Path]) -> tuple[list[int], list[str]]:
    """Return labels from class folders, and the classes in sorted order.

    The class of a picture is the first folder of its name; its label is the place of that in sorted order. Raises
    TokenFileError when a picture lies in no class folder, DataError when the first folders are splits that hold the
    class folders.
    """
    loose = [name for name in names if len(name.parts) < 2]
    if loose:
        raise TokenFileError(f"{loose[0]} lies in no class folder: labels need a folder with one sub-folder a class")
    classes = sorted({name.parts[0] for name in names})
    splits = several_splits(classes)
    if not splits and split_folders(classes) and len(classes) == 1 and all(len(name.parts) > 2 for name in names):
        splits = classes
    if splits:
        raise DataError(
            f"the first folders are splits ({', '.join(splits)}), not classes; name one of them by --split, or give "
            "the folder of one"
        )
    number = {name: i for i, name in enumerate(classes)}
    return [number[name.parts[0]] for name in names], classes


def find_token_files(arguments: Sequence[str]) -> list[Path]:
    """Return the ``.flowmo`` files and shards that arguments of a command mean, in their order, each once.

    A file is taken whatever its suffix; a folder is searched through and through for ``.flowmo`` files, and a folder
    below it that cannot be searched is among the results; a pattern that the shell left alone is matched here. Reading
    a broken link, a pipe or a folder fails by name. Raises TokenFileError for an argument that finds nothing.
    """
    found: dict[str, Path] = {}
    for text in map(os.path.expanduser, arguments):
        if os.path.isdir(text):
            files = _token_files(Path(text))
        elif os.path.lexists(text):
            files = [Path(text)]
        elif glob.has_magic(text):
            matches = sorted(Path(match) for match in glob.glob(text, recursive=True))
            files = [file for match in matches for file in (_token_files(match) if match.is_dir() else [match])]
        else:
            raise TokenFileError(f"{text}: there is no such file or folder")
        if not files:
            raise TokenFileError(
                f"{text}: no {TOKEN_SUFFIX} file found; 'flowmo tokenize' makes them (name a shard itself)"
            )
        for file in files:
            found.setdefault(os.path.realpath(file), file)
    return list(found.values())


def _token_files(folder: Path) -> list[Path]:
    listing = list_files(folder, lambda name: name.lower().endswith(TOKEN_SUFFIX))
    return [folder / name for name in [*listing.names, *listing.left_out]]


def _root(text: str) -> Path | None:
    """Return the folder that results keep their sub-folders below, None for an argument that names one file."""
    if os.path.isdir(text):
        return Path(text)
    if os.path.exists(text) or not glob.has_magic(text):
        return None
    parts = Path(text).parts
    fixed = next(i for i, part in enumerate(parts) if glob.has_magic(part))
    return Path(*parts[:fixed])
