"""Training and test images by index: a folder, Parquet files (Hugging Face layout), or one .npy array."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from PIL import Image

from ..errors import DataError, ImageError
from .decode import IMAGE_SUFFIXES, decode

_SPLIT = re.compile(r"(train|validation|val|test)(?![a-z])", re.IGNORECASE)


class SplitError(DataError):
    """The data are there, but not in the split that was asked for, or in none at all."""


class ImageSource(Protocol):
    """Images by index, decoded when asked for; safe to read from several threads."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Image.Image:
        """RGB, any size. Raises ImageError naming the image when it is broken."""

    def label(self, index: int) -> int | None:
        """Class of the image, None where the data has none."""

    def name(self, index: int) -> str:
        """For messages and file names."""

    def describe(self) -> str:
        """One line: how many images, from where, how many classes."""


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


class FileSource:
    """Image files; ``labels`` one a file, or None."""

    def __init__(
        self, files: Sequence[Path], root: Path, limit: int | None = None, labels: Sequence[int] | None = None
    ) -> None:
        self.files, self.root = list(files)[:limit], root
        self.labels = None if labels is None else list(labels)[:limit]

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> Image.Image:
        return decode(self.files[index], str(self.files[index]))

    def label(self, index: int) -> int | None:
        return None if self.labels is None else self.labels[index]

    def name(self, index: int) -> str:
        file = self.files[index]
        return file.relative_to(self.root).as_posix() if file.is_relative_to(self.root) else file.name

    def describe(self) -> str:
        return f"{len(self)} image files in {self.root}" + _classes(self.labels)


class ParquetSource:
    """Hugging Face layout: ``image`` a struct of bytes and path, or plain bytes; optional integer ``label``.

    The encoded bytes stay in memory.
    """

    def __init__(self, files: Sequence[Path], limit: int | None = None) -> None:
        try:
            import pyarrow.parquet  # noqa: F401
        except ImportError:
            raise DataError("reading Parquet needs pyarrow: pip install 'flowmo[data]'") from None
        self.files = list(files)
        self.data: list[bytes | None] = []
        self.names: list[str] = []
        labels: list[int | None] = []
        for file in self.files:
            left = None if limit is None else limit - len(self.data)
            if left == 0:
                break
            self._read(file, left, labels)
        self.labels = labels if any(label is not None for label in labels) else None
        if not self.data:
            raise DataError(f"{self.files[0]}: holds no images")

    def _read(self, file: Path, limit: int | None, labels: list[int | None]) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        try:
            with pq.ParquetFile(file) as parquet:
                schema = parquet.schema_arrow
                kind = schema.field("image").type if "image" in schema.names else None
                if kind is None or not (_is_binary(kind) or (pa.types.is_struct(kind) and _has_bytes(kind))):
                    raise DataError(f"{file}: needs a column 'image' of encoded bytes, found columns {schema.names}")
                labelled = "label" in schema.names and pa.types.is_integer(schema.field("label").type)
                row = 0
                for batch in parquet.iter_batches(256, columns=["image", "label"] if labelled else ["image"]):
                    if limit is not None:
                        batch = batch.slice(0, limit - row)
                    images = batch.column("image").to_pylist()
                    labels += batch.column("label").to_pylist() if labelled else [None] * len(images)
                    for image in images:
                        entry = image if isinstance(image, dict) else {"bytes": image}
                        self.data.append(entry["bytes"])
                        self.names.append(entry.get("path") or f"{file.name}:{row}")
                        row += 1
                    if row == limit:
                        break
        except (OSError, pa.ArrowException) as error:
            raise DataError(f"{file}: not a Parquet file that can be read ({error}); fetch it again") from None

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, index: int) -> Image.Image:
        data = self.data[index]
        if not data:
            raise ImageError(f"{self.name(index)}: has no bytes in {self.files[0].parent}")
        return decode(data, self.name(index))

    def label(self, index: int) -> int | None:
        return None if self.labels is None else self.labels[index]

    def name(self, index: int) -> str:
        return self.names[index]

    def describe(self) -> str:
        files = self.files[0].name if len(self.files) == 1 else f"{len(self.files)} Parquet files"
        return f"{len(self)} images in {files} of {self.files[0].parent}" + _classes(self.labels)


class ArraySource:
    """A memory-mapped ``.npy`` of uint8 (n, H, W, 3), with labels in ``<stem>.labels.npy`` if that exists."""

    def __init__(self, file: Path, limit: int | None = None) -> None:
        self.file = file
        images = _load_array(file, mmap_mode="r")
        if images.dtype != np.uint8 or images.ndim != 4 or images.shape[3] != 3 or 0 in images.shape:
            raise DataError(f"{file}: needs uint8 of shape (n, height, width, 3), got {images.dtype} {images.shape}")
        self.images = images[:limit]
        self.labels: list[int] | None = None
        label_file = file.with_name(file.stem + ".labels.npy")
        if label_file.is_file():
            labels = _load_array(label_file)
            if labels.shape != images.shape[:1] or not np.issubdtype(labels.dtype, np.integer):
                raise DataError(f"{label_file}: needs {len(images)} integers, got {labels.dtype} {labels.shape}")
            self.labels = labels[:limit].tolist()

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Image.Image:
        return Image.fromarray(np.array(self.images[index]))

    def label(self, index: int) -> int | None:
        return None if self.labels is None else self.labels[index]

    def name(self, index: int) -> str:
        return f"{self.file.stem}:{range(len(self))[index]}"

    def describe(self) -> str:
        return f"{len(self)} images of {'x'.join(map(str, self.images.shape[1:3]))} in {self.file}" + _classes(
            self.labels
        )


def image_files(folder: Path) -> list[Path]:
    """Every image below a folder, by suffix, in sorted order; hidden files and folders are left out."""
    found = []
    for parent, folders, names in os.walk(folder):
        folders[:] = [f for f in folders if not f.startswith(".")]
        found += [Path(parent, n) for n in names if not n.startswith(".") and Path(n).suffix.lower() in IMAGE_SUFFIXES]
    return sorted(found)


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


def _is_binary(kind: Any) -> bool:
    import pyarrow as pa

    return pa.types.is_binary(kind) or pa.types.is_large_binary(kind)


def _has_bytes(kind: Any) -> bool:
    return kind.get_field_index("bytes") >= 0 and _is_binary(kind.field("bytes").type)


def _load_array(file: Path, mmap_mode: Any = None) -> np.ndarray:
    try:
        array = np.load(file, mmap_mode=mmap_mode, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise DataError(f"{file}: not a NumPy array that can be read ({error})") from None
    if not isinstance(array, np.ndarray):
        raise DataError(f"{file}: holds several arrays; give a .npy of one")
    return array


def _classes(labels: Sequence[int | None] | None) -> str:
    return "" if labels is None else f", {len({x for x in labels if x is not None})} classes"
