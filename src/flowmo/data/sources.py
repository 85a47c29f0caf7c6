"""Training and test images by index: what every kind of data set offers, and the two simplest, files and an array."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from PIL import Image

from ..errors import DataError
from ..files import folder_in_words
from ..image_utils.decode import decode
from ..image_utils.notes import note
from ..image_utils.regular import check_regular
from ..labels import NONE, checked_labels, whole_labels
from .listing import is_data_name, is_image_name, list_files


class SplitError(DataError):
    """The data are there, but not in the split that was asked for, or in none at all."""


class ImageSource(Protocol):
    """Images by index, decoded when asked for; safe to read from several threads and processes, and to pickle."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Image.Image:
        """Return an image, RGB, of any size. Raises ImageError naming the image when it is broken."""

    def label(self, index: int) -> int | None:
        """Return the class of the image, None where the data has none. See also :func:`class_names`."""

    def name(self, index: int) -> str:
        """Return the image's name, for messages and file names."""

    def describe(self) -> str:
        """Return one line: how many images, from where, how many classes."""


def class_names(source: ImageSource) -> list[str] | None:
    """Return the names of the labels, from 0 on, where the data tell them."""
    return getattr(source, "classes", None)


class FileSource:
    """The image files of these ``names`` below ``root``, as a data set.

    labels: one a file, -1 for none, or None. classes: their names. left_out: names below ``root`` of folders that
    cannot be searched; each is one more image that fails.
    """

    def __init__(
        self,
        root: Path,
        names: Sequence[str],
        limit: int | None = None,
        labels: Sequence[int] | None = None,
        classes: list[str] | None = None,
        left_out: Sequence[str] = (),
    ) -> None:
        self.root, self.names, self.classes = root, Texts([*names, *left_out][:limit]), classes
        self.labels = None if labels is None else np.array([*labels, *[-1] * len(left_out)][:limit], np.int32)
        self.left_out = max(0, len(self.names) - len(names))

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> Image.Image:
        file = self.root / self.names[index]
        return decode(file, str(file))

    def label(self, index: int) -> int | None:
        label = -1 if self.labels is None else int(self.labels[index])
        return label if label >= 0 else None

    def name(self, index: int) -> str:
        return self.names[index]

    def describe(self) -> str:
        text = f"{len(self) - self.left_out} image files in {folder_in_words(self.root)}" + classes_text(self.labels)
        return text + (f", and {self.left_out} folders that cannot be searched" if self.left_out else "")


class ArraySource:
    """A memory-mapped ``.npy`` of uint8 (n, H, W, 3), with labels in ``<stem>.labels.npy`` if that exists."""

    def __init__(self, file: Path, limit: int | None = None) -> None:
        self.file = file
        images = _load_array(file, mmap_mode="r")
        if images.dtype != np.uint8 or images.ndim != 4 or images.shape[3] != 3 or 0 in images.shape:
            raise DataError(f"{file}: needs uint8 of shape (n, height, width, 3), got {images.dtype} {images.shape}")
        self.images = images[:limit]
        self.labels: np.ndarray | None = None
        label_file = file.with_name(file.stem + ".labels.npy")
        if os.path.lexists(label_file):
            labels = _load_array(label_file, mmap_mode="r")
            found = whole_labels(labels) if labels.shape == images.shape[:1] else None
            if found is None:
                raise DataError(f"{label_file}: needs {len(images)} integers, got {labels.dtype} {labels.shape}")
            self.labels = checked_labels(found, str(label_file), len(images))[:limit]

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Image.Image:
        return Image.fromarray(np.array(self.images[index]))

    def label(self, index: int) -> int | None:
        label = NONE if self.labels is None else int(self.labels[index])
        return label if label >= 0 else None

    def name(self, index: int) -> str:
        return f"{self.file.stem}:{range(len(self))[index]}"

    def describe(self) -> str:
        size = "x".join(map(str, self.images.shape[1:3]))
        return f"{len(self)} images of {size} in {self.file}" + classes_text(self.labels)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "images": len(self)}  # a process that gets it maps the file itself

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__ = {**state, "images": _load_array(state["file"], mmap_mode="r")[: state["images"]]}


class Texts(Sequence[str]):
    """Many strings in one piece of memory: a million take a tenth of a list's, and forked processes share it."""

    def __init__(self, texts: Iterable[str]) -> None:
        pieces = [os.fsencode(text) for text in texts]
        self.ends = np.cumsum([len(piece) for piece in pieces], dtype=np.int64)
        self.bytes = b"".join(pieces)

    @classmethod
    def of(cls, data: np.ndarray, ends: np.ndarray) -> Texts:
        """Return it from what another has as its ``bytes`` and ``ends``."""
        texts = cls(())
        texts.bytes, texts.ends = data.tobytes(), ends
        return texts

    def __len__(self) -> int:
        return len(self.ends)

    def __getitem__(self, index: Any) -> Any:
        """Return one string; slices are not needed."""
        index = range(len(self))[index]
        return os.fsdecode(self.bytes[self.ends[index - 1] if index else 0 : self.ends[index]])

    def __iter__(self) -> Iterator[str]:
        return (self[i] for i in range(len(self)))


def image_files(folder: Path) -> list[Path]:
    """Return every image below a folder by its suffix, in sorted order, and then each folder that cannot be searched.

    Reading one of those fails by name, as reading a broken image does (see :func:`flowmo.data.listing.list_files`).
    Files of many images beside them are left out with a note.
    """
    listing = list_files(folder, is_data_name)
    names = [name for name in listing.names if is_image_name(name)]
    if names and len(names) < len(listing.names):
        other = next(name for name in listing.names if not is_image_name(name))
        note(str(folder), f"its tars and Parquet files were left out (such as {other}); only its pictures are read")
    return [folder / name for name in [*names, *listing.left_out]]


def classes_text(labels: Any) -> str:
    """Return the end of a description: how many classes an array of labels has, of which negative ones are none."""
    return "" if labels is None else f", {(np.unique(labels) >= 0).sum()} classes"


def _load_array(file: Path, mmap_mode: Any = None) -> np.ndarray:
    try:
        check_regular(file)
        array = np.load(file, mmap_mode=mmap_mode, allow_pickle=False)
    except Exception as error:  # NumPy raises nearly every type there is on damaged headers.
        raise DataError(f"{file}: not a NumPy array that can be read ({error})") from None
    if not isinstance(array, np.ndarray):
        raise DataError(f"{file}: holds several arrays; give a .npy of one")
    return array
