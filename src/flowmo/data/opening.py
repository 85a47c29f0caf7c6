"""A data set by its path: which kind it is, which split of it is meant."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Iterator
from pathlib import Path

from ..errors import DataError
from ..files import user_path
from ..image_utils.decode import IMAGE_SUFFIXES
from ..image_utils.regular import kind_of
from ..presets import PRESETS
from .hugging_face import PREFIX, HuggingFaceSource, is_saved
from .listing import COMPRESSED_TAR, CONTAINERS, PARQUET, TAR, Listing, is_data_name, list_files
from .parquet import ParquetSource
from .sources import ArraySource, FileSource, ImageSource, SplitError
from .splits import several_splits, split_folders, split_name, split_of
from .tars import TarSource

_BRACES = re.compile(r"\{(\d+)\.\.(\d+)\}")
_IMAGES = "images"  # beside TAR and PARQUET


def open_images(
    path: str | Path, limit: int | None = None, split: str | None = None, cache: Path | None = None
) -> ImageSource:
    """Open a data set by its path.

    path: a folder of images (class folders give labels), or one image;
    tars, one or a folder or pattern of them: ImageNet's as they are, class tars, WebDataset shards (see TarSource);
    Parquet files, likewise (see ParquetSource); a ``.npy`` of uint8 (n, H, W, 3) with optional ``<stem>.labels.npy``;
    ``hf:name`` or a folder saved by Hugging Face (see HuggingFaceSource). Patterns are those of the shell, also
    ``shard-{000000..000099}.tar``.

    limit: only the first so many images. split: "train" or "validation", where the path holds both, as told by the
    names of its files or folders. cache: a folder for what has to be found out once about tars, the user's by default.
    Raises DataError, SplitError for a split it lacks.
    """
    if limit is not None and limit < 1:
        raise DataError(f"the limit on images must be at least 1, got {limit}")
    split = split_name(split) if split else split
    if str(path).startswith(PREFIX):
        return HuggingFaceSource(str(path), limit, split)
    path = user_path(path)
    if os.path.isdir(path):
        return _open_folder(path, limit, split, cache)
    files = _expand(path)
    if all(f.suffix.lower() == PARQUET for f in files):
        return ParquetSource(_of_split(files, split, path), limit)
    if all(f.suffix.lower() == TAR for f in files):
        return TarSource(_of_split(files, split, path), limit, cache)
    if split is not None:
        raise SplitError(f"{path} has no splits; leave the split out")
    if len(files) == 1 and files[0].suffix.lower() == ".npy":
        return ArraySource(files[0], limit)
    if all(f.suffix.lower() in IMAGE_SUFFIXES for f in files):
        root = Path(os.path.commonpath([f.parent for f in files]))
        return FileSource(root, [f.relative_to(root).as_posix() for f in files], limit)
    _refuse_compressed(files)
    raise DataError(f"{path}: give a folder of images, tars, Parquet files, or one .npy file")


def open_split(
    path: str | Path, split: str | None, usual: str, limit: int | None = None
) -> tuple[ImageSource, str | None]:
    """Return the split asked for and its name; else the usual one, or all (None) of data that have no splits.

    limit: only the first so many images. Raises what :func:`open_images` does.
    """
    split = split_name(split) if split else None
    try:
        return open_images(path, limit, split or usual), split or usual
    except SplitError:
        if split:
            raise
        return open_images(path, limit), None


def _expand(path: Path) -> list[Path]:
    """Return the files that a path means, where it is a pattern."""
    if os.path.isfile(path):
        return [path]
    if os.path.exists(path):
        raise DataError(f"{path}: {kind_of(path)}")
    files = []
    for text in _numbered(str(path)):
        if glob.has_magic(text):
            found = sorted(Path(f) for f in glob.glob(text, recursive=True) if os.path.isfile(f))
            if not found:
                raise DataError(f"{text}: no file matches this pattern")
            files += found
        elif os.path.isfile(text):
            files.append(Path(text))
        else:
            swapped = (
                "that is a model's name, and models stand before the data" if text in PRESETS else "check the path"
            )
            raise DataError(f"{text}: there is no such file or folder; {swapped}")
    if not files:
        raise DataError(f"{path}: the numbers in braces must rise")
    return files


def _numbered(text: str) -> Iterator[str]:
    """Yield a-08.tar, a-09.tar, a-10.tar and a-11.tar of ``a-{08..11}.tar``."""
    match = _BRACES.search(text)
    if not match:
        yield text
        return
    for number in range(int(match[1]), int(match[2]) + 1):
        yield from _numbered(text[: match.start()] + str(number).zfill(len(match[1])) + text[match.end() :])


def _open_folder(folder: Path, limit: int | None, split: str | None, cache: Path | None) -> ImageSource:
    try:
        os.listdir(folder)
    except OSError as error:
        raise DataError(f"{folder}: cannot be searched ({error.strerror}); check its permissions") from None
    if is_saved(folder):
        return HuggingFaceSource(str(folder), limit, split)
    inside = [d.name for d in folder.iterdir() if d.is_dir() and not d.name.startswith(".")]
    halves = split_folders(inside)
    if split is not None and split in halves:
        return _open_folder(folder / halves[split], limit, None, cache)
    if several := several_splits(inside):
        raise DataError(f"{folder} holds several splits ({', '.join(several)}); name one of them")
    listing = list_files(folder, is_data_name)
    kinds = _by_kind(folder, listing)
    if parquet := kinds[PARQUET]:
        return ParquetSource(_of_split([folder / name for name in parquet], split, folder), limit)
    if tars := kinds[TAR]:
        return TarSource(_of_split([folder / name for name in tars], split, folder), limit, cache)
    if split is not None:
        raise SplitError(f"{folder} has no split {split!r}; leave the split out, or give another folder")
    names = kinds[_IMAGES]
    if not names:
        _refuse_left_out(folder, listing)
        raise DataError(f"{folder}: no image found in it; give a folder of JPEG, PNG or WebP files, Parquet or tars")
    labels = classes = None
    if all(name.count("/") == 1 for name in names):
        folders = [name.partition("/")[0] for name in names]
        # a class folder that cannot be searched keeps its number
        classes = sorted({*folders, *(name for name in listing.left_out if "/" not in name)})
        numbers = {name: i for i, name in enumerate(classes)}
        labels = [numbers[name] for name in folders]
    return FileSource(folder, names, limit, labels, classes, list(listing.left_out))


def _by_kind(folder: Path, listing: Listing) -> dict[str, list[str]]:
    """Return the names of images, tars and Parquet files in a folder.

    Raises DataError for several kinds, of which all but one would be left out, for compressed tars, and where the
    others cannot be found since a part cannot be searched.
    """
    kinds: dict[str, list[str]] = {_IMAGES: [], TAR: [], PARQUET: []}
    for name in listing.names:
        suffix = os.path.splitext(name)[1].lower()
        kinds[suffix if suffix in CONTAINERS else _IMAGES].append(name)
    _refuse_compressed([folder / name for name in kinds[_IMAGES]])
    found = {kind: names for kind, names in kinds.items() if names}
    if len(found) > 1:
        several = " and ".join(f"{kind} ({names[0]}{', ...' * (len(names) > 1)})" for kind, names in found.items())
        raise DataError(
            f"{folder} holds {several}, and one kind is read at a time; move the others elsewhere, or give a pattern"
        )
    if found and _IMAGES not in found:
        _refuse_left_out(folder, listing)
    return kinds


def _refuse_left_out(folder: Path, listing: Listing) -> None:
    for name, reason in listing.left_out.items():
        raise DataError(f"{folder / name}: cannot be searched ({reason}); check its permissions")


def _refuse_compressed(files: list[Path]) -> None:
    for file in files:
        if COMPRESSED_TAR.search(file.name):
            raise DataError(f"{file}: is a compressed tar; unpack it to a plain .tar, of which any image can be read")


def _of_split(files: list[Path], split: str | None, where: Path) -> list[Path]:
    if split is None:
        found = sorted({split_of(f.name) for f in files} - {""})
        if len(found) > 1:
            raise DataError(f"{where} holds several splits ({', '.join(found)}); name one of them")
        return files
    chosen = [f for f in files if split_of(f.name) == split]
    if not chosen:
        raise SplitError(f"{where} has no files of the split {split!r}; leave the split out, or give another path")
    return chosen
