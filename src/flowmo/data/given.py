"""What a command is given to code: a data set, or picture files and folders; and the labels of its images."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from ..errors import ConfigError, DataError
from ..files import user_path
from .inputs import ImageList, find_images
from .listing import CONTAINERS, is_container_name, list_files
from .naming import class_labels, relative_names
from .opening import open_images
from .sources import ImageSource, class_names
from .tars import read_labels


class Given(NamedTuple):
    """Images to code."""

    source: ImageSource  # the images
    classes: list[str] | None  # names of their labels, where they are known
    paths: list[Path]  # of single pictures; none of a data set


def open_given(
    given: Sequence[str], split: str | None = None, limit: int | None = None, folders_are_classes: bool = False
) -> Given:
    """Return the images of a data set, or of files, folders and patterns.

    split, limit: of the images, the part and the first so many.
    folders_are_classes: whether sub-folders number pictures; a data set brings its own labels.
    Raises ConfigError for a split of pictures, DataError or ImageError where there is nothing to read.
    """
    if len(given) == 1 and (split or is_data_set(given[0])):
        source = open_images(given[0], limit, split)
        return Given(source, class_names(source), [])
    if split:
        raise ConfigError("--split is for a data set; these are pictures, all of which are coded")
    sets = [text for text in given if is_data_set(text)]
    if sets:
        raise ConfigError(
            f"{sets[0]} is a data set, and one is coded at a time; give one folder, or one pattern in quotes such as "
            "'shard-*.tar'"
        )
    paths = find_images(list(given))[:limit]
    names = relative_names(list(given), paths)
    labels, classes = class_labels(names) if folders_are_classes else (None, None)
    return Given(ImageList(paths, [name.as_posix() for name in names], labels), classes, paths)


def is_data_set(text: str) -> bool:
    """Return whether only ``open_images`` reads it, rather than that it means pictures.

    A folder that holds pictures too is one, which ``open_images`` refuses.
    """
    path = user_path(text)
    if path.is_dir():
        return bool(list_files(path, is_container_name).names)
    return text.startswith("hf:") or path.suffix.lower() in (*CONTAINERS, ".npy")


def labels_of(source: ImageSource, file: Path | None = None) -> list[int] | None:
    """Return a label for each image, of the file of labels or else its own; None where there are none.

    Raises DataError where some images have none.
    """
    if file is not None:
        return read_labels(file, [source.name(i) for i in range(len(source))]).tolist()
    found = [source.label(i) for i in range(len(source))]
    known = [label for label in found if label is not None]
    if known and len(known) < len(found):
        raise DataError(
            f"{len(found) - len(known)} of {len(found)} pictures have no label, such as "
            f"{source.name(found.index(None))}; give labels for all of them by --label-file"
        )
    return known or None
