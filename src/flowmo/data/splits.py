"""Splits of data sets, as the names of files and folders tell them: train, validation, test."""

from __future__ import annotations

import re
from collections.abc import Collection

_SPLIT = re.compile(r"(?:^|[-_.])(train|validation|valid|val|test)(?![a-z])", re.IGNORECASE)
_VALIDATION = ("val", "valid", "validation")


def split_name(text: str) -> str:
    """Return the split that a text means, in any case: train, test, or validation, also called val or valid.

    Any other text stays itself.
    """
    name = text.lower()
    return "validation" if name in _VALIDATION else name if name in ("train", "test") else text


def split_of(name: str) -> str:
    """Return the split in a file's name, as in train-00000-of-00005.parquet and ILSVRC2012_img_val.tar; "" for none."""
    match = _SPLIT.search(name)
    return split_name(match.group(1)) if match else ""


def split_folders(names: Collection[str]) -> dict[str, str]:
    """Return those names of folders that are a split's and nothing else, by split."""
    return {split_of(name): name for name in sorted(names) if _SPLIT.fullmatch(name)}


def several_splits(names: Collection[str]) -> list[str]:
    """Return the splits that folders of these names hold, where they are splits of one data set and no classes.

    They are where one is train and there are others, or where all are splits. Otherwise the list is empty.
    """
    found = split_folders(names)
    several = len(found) > 1 and ("train" in found or len(found) == len(names))
    return sorted(found) if several else []
