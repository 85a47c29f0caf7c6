"""Images in tars, read where they lie: ImageNet's training and validation tars, class tars, WebDataset shards."""

from __future__ import annotations

import os
import tarfile
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from ..errors import DataError, ImageError
from ..files import folder_in_words
from ..image_utils.decode import MAX_ENCODED_BYTES, decode
from ..image_utils.regular import check_regular
from ..labels import NONE, labels_by_name, parsed_label
from .index_cache import tar_indexes
from .sources import classes_text
from .tar_index import NOT_PLAIN, WNID, TarIndex


class TarSource:
    """The images of plain tars, in their order; nothing is unpacked, and any image is one read.

    Labels are, where there are any: those of WebDataset (``key.cls``, or ``label`` in ``key.json``); else those in the
    text file ``<stem>.labels.txt`` beside a single tar, a line an image in the order of their names, ``label`` or
    ``name label``, as integers or ImageNet's wnids; else the places of their classes in sorted order, where every
    image lies in a class tar (``n01440764.tar``, also inside of a tar) or a folder of such a name.

    cache: where the indexes are kept, see :func:`flowmo.data.index_cache.tar_indexes`. Raises DataError for tars that
    cannot be read.
    """

    def __init__(self, tars: Sequence[Path], limit: int | None = None, cache: Path | None = None) -> None:
        self.tars = list(tars)
        self._indexes = tar_indexes(self.tars, cache)
        self._starts = np.cumsum([0, *(len(index.offsets) for index in self._indexes)])
        self._length = int(self._starts[-1])
        if not self._length:
            raise DataError(f"{self.tars[0]}: holds no image; it needs JPEG, PNG or WebP members, or tars of them")
        self.labels = self._find_labels()
        if limit is not None:
            self._length = min(self._length, limit)
            self.labels = None if self.labels is None else self.labels[:limit]

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, index: int) -> Image.Image:
        number, row = self._place(index)
        offset, size = int(self._indexes[number].offsets[row]), int(self._indexes[number].sizes[row])
        name = f"{self.tars[number]}: {self._indexes[number].names[row]}"
        if size == NOT_PLAIN:
            raise ImageError(f"{name}: is stored as a link or with holes; pack it anew as a plain file")
        if size > MAX_ENCODED_BYTES:
            raise ImageError(f"{name}: too large ({size:,} bytes in a tar; at most {MAX_ENCODED_BYTES:,})")
        try:
            with open(self.tars[number], "rb") as file:  # its own place in the file for every thread and process
                file.seek(offset - tarfile.BLOCKSIZE)
                header, data = file.read(tarfile.BLOCKSIZE), file.read(size)
        except (OSError, ValueError) as error:
            raise ImageError(f"{name}: cannot be read ({error})") from None
        if zlib.crc32(header) != int(self._indexes[number].headers[row]) or len(data) < size:
            raise ImageError(f"{name}: the tar was changed since its images were found; start again")
        return decode(data, name)

    def label(self, index: int) -> int | None:
        label = -1 if self.labels is None else int(self.labels[range(len(self))[index]])
        return label if label >= 0 else None

    def name(self, index: int) -> str:
        number, row = self._place(index)
        name = self._indexes[number].names[row]
        return name if len(self.tars) == 1 else f"{self.tars[number].stem}/{name}"

    def describe(self) -> str:
        several = f"{len(self.tars)} tars of {folder_in_words(self.tars[0].parent)}"
        where = self.tars[0] if len(self.tars) == 1 else several
        return f"{len(self)} images in {where}" + classes_text(self.labels)

    def _place(self, index: int) -> tuple[int, int]:
        """Return the tar of an image, and its place in the index of that."""
        index = range(len(self))[index]
        number = int(np.searchsorted(self._starts, index, "right")) - 1
        return number, index - int(self._starts[number])

    def _find_labels(self) -> np.ndarray | None:
        own = np.concatenate([index.labels for index in self._indexes])
        if (own >= 0).any():
            return own
        beside = self.tars[0].with_suffix(".labels.txt")
        if len(self.tars) == 1 and os.path.lexists(beside):
            return read_labels(beside, list(self._indexes[0].names))
        classes = [name for tar, index in zip(self.tars, self._indexes, strict=True) for name in _classes(tar, index)]
        if not all(classes):
            return None
        numbers = {name: i for i, name in enumerate(sorted(set(classes)))}
        return np.array([numbers[name] for name in classes], np.int32)


def _classes(tar: Path, index: TarIndex) -> list[str]:
    own = tar.stem if WNID.fullmatch(tar.stem) else ""
    return [name or own for name in index.classes]


def read_labels(file: Path, names: Sequence[str]) -> np.ndarray:
    """Return labels of the images ``names``, -1 for none.

    Lines are ``label`` in the order of the sorted names, or ``name label``.

    ImageNet's wnids are numbered in sorted order. Raises DataError when lines and images do not match.
    """
    try:
        check_regular(file)
        lines = [line.split() for line in file.read_text(encoding="utf-8-sig").splitlines() if line.strip()]
    except (OSError, ValueError) as error:
        raise DataError(f"{file}: cannot be read ({error})") from None
    columns = {len(line) for line in lines}
    if len(lines) != len(names) or columns not in ({1}, {2}):
        raise DataError(f"{file}: needs {len(names)} lines 'label' or 'name label', one an image; found {len(lines)}")
    words = [line[-1] for line in lines]
    if all(WNID.fullmatch(word) for word in words):
        numbers = {word: i for i, word in enumerate(sorted(set(words)))}
    elif all(word.isascii() and word.isdigit() for word in words):
        numbers = {word: parsed_label(word, str(file)) for word in words}
    else:
        raise DataError(f"{file}: labels must all be integers or all be wnids such as n01440764")
    labels_by_name([(name, NONE) for name in names], str(file))
    keys = sorted(names) if columns == {1} else [line[0] for line in lines]
    label_of = labels_by_name([(key, numbers[word]) for key, word in zip(keys, words, strict=True)], str(file))
    missing = next((name for name in names if name not in label_of), None)
    if missing is not None:
        raise DataError(f"{file}: has no line for {missing}")
    return np.array([label_of[name] for name in names], np.int32)
