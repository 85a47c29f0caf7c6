"""Splits of data sets, as the names of files and folders tell them: train, validation, test."""

from __future__ import annotations

import re
from collections.abc import Collection

_SPLIT = re.compile(r"(?:^|[-_.])(train|validation|valid|val|test)(?![a-z])", re.IGNORECASE)
_VALIDATION = ("val", "valid", "validation")


def split_name(text: str) -> str:
    """Return the split that a text means: train, test, or validation, which is also called val or valid, in any case.
    Any other text stays itself."""
    name = text.lower()
    return "validation" if name in _VALIDATION else name if name in ("train", "test") else text


def split_of(name: str) -> str:
    """Return the split in a file's name, as in train-00000-of-00005.parquet and ILSVRC2012_img_val.tar; "" for none."""
    match = _SPLIT.search(name)
    return split_name(match.group(1)) if match else ""


def split_folders(names: Collection[str]) -> dict[str, str]:
    """Return, of names of folders, those that are a split's and nothing else, by split; names that are not are left
    out."""
    return {split_of(name): name for name in sorted(names) if _SPLIT.fullmatch(name)}


def several_splits(names: Collection[str]) -> list[str]:
    """Return the splits where folders of these names hold several splits of one data set, and are no classes: one is
    train, or all are splits. Nothing otherwise."""
    found = split_folders(names)
    several = len(found) > 1 and ("train" in found or len(found) == len(names))
    return sorted(found) if several else []
