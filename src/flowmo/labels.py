"""Labels of any container, checked in one place: range, names, order and uniqueness (docs/DATA.md, Labels)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from .errors import DataError

NONE = -1
"""The entry of an image without a label, in an array of labels."""

MOST = 2**31 - 1  # the largest label


def checked_labels(
    values: Any, where: str, count: int | None = None, classes: Sequence[str] | None = None
) -> np.ndarray:
    """Return labels of any integer type as int32, each -1 for none or from 0 to 2,147,483,647.

    count: of the images, where each must have an entry.
    classes: names from 0 on; then each label must have one.
    Raises DataError that begins with ``where``.
    """
    array = np.asarray(values)
    if array.size == 0:
        array = array.astype(np.int64)
    if array.dtype == object:  # Python's integers beyond 64 bits
        if not all(type(value) is int for value in array.flat):
            raise DataError(f"{where}: labels must be whole numbers")
    elif array.dtype.kind not in "iu":
        raise DataError(f"{where}: labels must be whole numbers, got {array.dtype}")
    if array.ndim != 1 or (count is not None and len(array) != count):
        raise DataError(f"{where}: needs {count} labels, one an image, got {tuple(array.shape)}")
    if len(array):
        low, high = int(array.min()), int(array.max())
        if low < NONE or high > MOST:
            raise DataError(
                f"{where}: the label {low if low < NONE else high} is no class; they are counted from 0 to {MOST:,}"
            )
        if classes is not None and high >= len(classes):
            raise DataError(f"{where}: the label {high} does not fit {len(classes)} names of classes, counted from 0")
    return array.astype(np.int32)


def whole_labels(values: Any) -> np.ndarray | None:
    """Return labels of any type as whole numbers where each is one, or none; None where one of them is something else.

    Whole numbers are integers, 3.0, truth values and texts of digits; nothing (None, NaN) is none; a name is something
    else.
    """
    array = np.asarray(values)
    if array.dtype.kind in "iu":
        return array
    if array.dtype.kind not in "bfSUO":  # times without a unit look like integers
        return None
    found = [_whole(value) for value in array.ravel().tolist()]
    if any(value is None for value in found):
        return None
    return np.array(found, object).reshape(array.shape)


def _whole(value: Any) -> int | None:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return NONE
    if isinstance(value, (bool, int)):
        return int(value)
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, (bytes, str)):
        text = value.strip()
        text = text.decode("latin-1") if isinstance(text, bytes) else text
        if text.isascii() and text.isdigit():
            return int(text) if len(text) <= 10 else MOST + 1
    return None


def parsed_label(text: str, where: str) -> int:
    """Return the label that a text writes as a decimal number. Raises DataError that begins with ``where``."""
    if not (text.isascii() and text.isdigit()):
        raise DataError(f"{where}: labels must be whole numbers from 0 on, got {text[:40]!r}")
    if len(text) > 10 or int(text) > MOST:
        raise DataError(f"{where}: the label {text[:40]} is no class; they are counted from 0 to {MOST:,}")
    return int(text)


def labels_by_name(pairs: Sequence[tuple[str, int]], where: str) -> dict[str, int]:
    """Return the label of each name. Raises DataError that begins with ``where`` for a name that stands twice."""
    found: dict[str, int] = {}
    for name, label in pairs:
        if name in found:
            raise DataError(f"{where}: {name} stands twice; give each image one label")
        found[name] = label
    return found


def merged_labels(
    parts: Sequence[tuple[str, np.ndarray, list[str] | None]],
) -> tuple[np.ndarray, list[str] | None]:
    """Return the labels of several files as one array (n,), and the names of the classes or None.

    parts: of each file its name, labels and names of classes.
    Files that number the same names differently are brought to the order of the first; names that it lacks follow.
    Raises DataError where that cannot be told: names of some files only, or names that stand twice in lists that
    differ.
    """
    labelled = [part for part in parts if (part[1] >= 0).any()]
    first = labelled[0] if labelled else parts[0]
    classes = first[2]
    found = []
    for where, labels, names in parts:
        if names != classes and (labels >= 0).any():
            if names is None or classes is None:
                named, bare = (first[0], where) if names is None else (where, first[0])
                raise DataError(f"{named} names its classes, {bare} does not; give files of one data set")
            for file, each in ((first[0], classes), (where, names)):
                if len(set(each)) < len(each):
                    twice = next(name for name in each if each.count(name) > 1)
                    raise DataError(
                        f"{file}: two classes are named {twice!r}, and {where} orders its classes otherwise"
                    )
            classes = [*classes, *(name for name in names if name not in set(classes))]
            place = {name: i for i, name in enumerate(classes)}
            numbers = np.array([place[name] for name in names], np.int32)
            labels = np.where(labels >= 0, numbers[np.maximum(labels, 0)], NONE).astype(np.int32)
        found.append(labels)
    return np.concatenate(found), classes


def check_same_classes(one: Sequence[str] | None, other: Sequence[str] | None, words: str) -> None:
    """Raise DataError where two data sets name the same label differently.

    words: which data sets they are, for the message.
    A data set without names, or with fewer of them, is taken to mean the same.
    """
    for label, (a, b) in enumerate(zip(one or (), other or (), strict=False)):
        if a != b:
            raise DataError(f"{words} name their classes differently: {label} is {a!r} in one, {b!r} in the other")
