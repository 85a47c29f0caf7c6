"""A data set by its path: which kind it is, which split of it is meant."""

from __future__ import annotations

import glob
import os
import re
from pathlib import Path

from ..errors import DataError
from .decode import IMAGE_SUFFIXES
from .parquet import ParquetSource
from .sources import ArraySource, FileSource, ImageSource, SplitError, image_files

_SPLIT = re.compile(r"(train|validation|val|test)(?![a-z])", re.IGNORECASE)


def open_images(path: str | Path, limit: int | None = None, split: str | None = None) -> ImageSource:
    """Open a data set by its path.

    path: a folder of images (class folders give labels), one image, a Parquet file, a folder or glob of Parquet files,
    or a ``.npy`` of uint8 (n, H, W, 3) with optional ``<stem>.labels.npy``. limit: only the first so many images.
    split: "train" or "validation", where the path holds both. Raises DataError, SplitError for a split it lacks.
    """
    path = Path(path).expanduser()
    if limit is not None and limit < 1:
        raise DataError(f"the limit on images must be at least 1, got {limit}")
    if os.path.isdir(path):
        return _open_folder(path, limit, split)
    if os.path.isfile(path):
        files = [path]
    elif glob.has_magic(str(path)):
        files = sorted(Path(f) for f in glob.glob(str(path), recursive=True) if os.path.isfile(f))
        if not files:
            raise DataError(f"{path}: no file matches this pattern")
    else:
        raise DataError(f"{path}: there is no such file or folder; check the path")
    if all(f.suffix == ".parquet" for f in files):
        return ParquetSource(_of_split(files, split, path), limit)
    if split is not None:
        raise SplitError(f"{path} has no splits; leave the split out")
    if len(files) == 1 and files[0].suffix == ".npy":
        return ArraySource(files[0], limit)
    if all(f.suffix.lower() in IMAGE_SUFFIXES for f in files):
        return FileSource(files, path, limit)
    raise DataError(f"{path}: give a folder of images, Parquet files, or one .npy file")


def _open_folder(folder: Path, limit: int | None, split: str | None) -> ImageSource:
    parquet = sorted(folder.glob("*.parquet")) or sorted(folder.glob("data/*.parquet"))
    if parquet:
        return ParquetSource(_of_split(parquet, split, folder), limit)
    halves = {_split_of(d): d for d in sorted(folder.iterdir()) if d.is_dir() and _SPLIT.fullmatch(d.name)}
    if split is not None and split in halves:
        folder = halves[split]
    elif split is not None:
        raise SplitError(f"{folder} has no split {split!r}; leave the split out, or give another folder")
    elif "train" in halves and len(halves) > 1:
        raise DataError(f"{folder} holds several splits ({', '.join(sorted(halves))}); name one of them")
    files = image_files(folder)
    if not files:
        raise DataError(f"{folder}: no image found in it; give a folder of JPEG, PNG, WebP or Parquet files")
    labels = None
    if all(len(f.relative_to(folder).parts) == 2 for f in files):
        classes = {name: i for i, name in enumerate(sorted({f.parent.name for f in files}))}
        labels = [classes[f.parent.name] for f in files]
    return FileSource(files, folder, limit, labels)


def _of_split(files: list[Path], split: str | None, where: Path) -> list[Path]:
    if split is None:
        found = sorted({_split_of(f) for f in files} - {""})
        if len(found) > 1:
            raise DataError(f"{where} holds several splits ({', '.join(found)}); name one of them")
        return files
    chosen = [f for f in files if _split_of(f) == split]
    if not chosen:
        raise SplitError(f"{where} has no files of the split {split!r}; leave the split out, or give another path")
    return chosen


def _split_of(path: Path) -> str:
    match = _SPLIT.match(path.name)
    name = match.group(1).lower() if match else ""
    return "validation" if name == "val" else name
