"""Data sets of Hugging Face, from its hub or a folder of theirs, by the ``datasets`` package; the bytes we decode."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ..errors import DataError, ImageError
from ..image_utils.decode import decode
from ..image_utils.notes import note
from ..labels import checked_labels, whole_labels
from .sources import SplitError, classes_text
from .splits import split_name

PREFIX = "hf:"


def is_saved(folder: Path) -> bool:
    """Return whether ``save_to_disk`` made a folder."""
    return any((folder / name).is_file() for name in ("state.json", "dataset_dict.json"))


class HuggingFaceSource:
    """A column of images, by the name ``image`` or the first of its type; optional integer column ``label``.

    where: ``hf:name`` or ``hf:name:config`` on the hub, or a folder that ``save_to_disk`` made. Raises DataError when
    ``datasets`` is missing or cannot load it, SplitError for a split that it lacks.
    """

    def __init__(self, where: str, limit: int | None = None, split: str | None = None) -> None:
        try:
            import datasets
        except ImportError:
            raise DataError(f"{where} needs the package datasets: pip install datasets") from None
        if int(datasets.__version__.partition(".")[0]) < 4:
            raise DataError(f"{where} needs datasets 4 or newer, which runs no code of a data set; yours is older")
        self.where = where
        data = _load(where, split)
        kinds = [name for name, kind in data.features.items() if isinstance(kind, datasets.Image)]
        if not kinds:
            raise DataError(f"{where} has no column of images; its columns are {', '.join(data.features)}")
        self.column = "image" if "image" in kinds else kinds[0]
        if limit is not None:
            data = data.select(range(min(limit, len(data))))
        if not len(data):
            raise DataError(f"{where}: holds no images")
        self.labels = None
        label = data.features.get("label")
        self.classes: list[str] | None = getattr(label, "names", None)
        if label is not None:
            values = np.array([*data["label"], None], object)[:-1]  # of any size, and null of unsigned columns too
            found = whole_labels(values)
            if found is None:
                note(where, "its labels were left out (they are not all whole numbers)")
            else:
                self.labels = checked_labels(found, where, len(data), self.classes)
        self.data = data.select_columns(self.column).cast_column(self.column, datasets.Image(decode=False))

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, index: int) -> Image.Image:
        entry = self._entry(index)
        if not entry.get("bytes"):
            raise ImageError(f"{self.name(index)}: the data set has its path only, and no bytes")
        return decode(entry["bytes"], self.name(index))

    def label(self, index: int) -> int | None:
        label = -1 if self.labels is None else int(self.labels[range(len(self))[index]])
        return label if label >= 0 else None

    def name(self, index: int) -> str:
        number = range(len(self))[index]
        path = self._entry(index).get("path")
        return Path(path).name if path else f"{self.where}:{number}"

    def describe(self) -> str:
        return f"{len(self)} images in {self.where}" + classes_text(self.labels)

    def _entry(self, index: int) -> dict[str, Any]:
        return self.data[range(len(self))[index]][self.column] or {}


def _load(where: str, split: str | None) -> Any:
    """Return one split of the data set that ``where`` names; the only one where ``split`` is None."""
    import datasets

    name, _, config = where.removeprefix(PREFIX).partition(":")
    try:
        if where.startswith(PREFIX):
            found = datasets.load_dataset(name, config or None)
        else:
            found = datasets.load_from_disk(where)
    except Exception as error:  # It passes on what its many parts raise.
        raise DataError(f"{where}: the package datasets cannot load it ({error})") from None
    if not isinstance(found, dict):  # one split, saved alone
        if split is not None and split_name(str(found.split or split)) != split_name(split):
            raise SplitError(f"{where} is the split {found.split}, not {split!r}")
        return found
    if split is None and len(found) > 1:
        raise DataError(f"{where} holds several splits ({', '.join(found)}); name one of them")
    if split is not None and split not in found:
        split = next((name for name in found if split_name(name) == split_name(split)), split)
    if split is not None and split not in found:
        raise SplitError(f"{where} has no split {split!r}; it has {', '.join(found)}")
    return found[split or next(iter(found))]
