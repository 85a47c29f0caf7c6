"""What a run remembers of its data, and what changed when it goes on with other data."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import asdict, dataclass
from typing import Any

from .sources import ImageSource, class_names


@dataclass(frozen=True)
class DataFingerprint:
    """The names, labels and classes of a data set, as checksums that tell whether it has changed."""

    images: int  # how many
    names: str  # SHA-256 in hex over the names in their order, and the labels
    sorted_names: str  # SHA-256 over the names alone, in sorted order
    classes: str  # SHA-256 of the names of the labels
    first: str  # name of the first image, for a message
    last: str  # name of the last image, likewise

    def to_dict(self) -> dict[str, Any]:
        """Return the same as JSON has it."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Any) -> DataFingerprint | None:
        """Return it from what :meth:`to_dict` gave; None where it is not that, as in a run of an earlier version."""
        kinds = {"images": int} | dict.fromkeys(("names", "sorted_names", "classes", "first", "last"), str)
        if not isinstance(values, dict) or any(type(values.get(name)) is not kind for name, kind in kinds.items()):
            return None
        return cls(**{name: values[name] for name in kinds})


def fingerprint_of(source: ImageSource) -> DataFingerprint:
    """Return a checksum of a data set by its names, labels and classes; no image is opened."""
    names = [source.name(i) for i in range(len(source))]
    ordered = hashlib.sha256()
    for i, name in enumerate(names):
        ordered.update(os.fsencode(name) + b"\0" + str(source.label(i)).encode() + b"\0")
    alone = hashlib.sha256(b"\0".join(sorted(map(os.fsencode, names))))
    classes = hashlib.sha256(json.dumps(class_names(source)).encode())
    first, last = (ascii(name)[1:-1] for name in (names[0], names[-1])) if names else ("", "")
    return DataFingerprint(len(names), ordered.hexdigest(), alone.hexdigest(), classes.hexdigest(), first, last)


def changes(before: DataFingerprint, now: DataFingerprint) -> str:
    """Return what changed from one to the other, in words for a message; "" where nothing did."""
    if before == now:
        return ""
    if before.images != now.images:
        return f"{now.images:,} images where there were {before.images:,}"
    if before.sorted_names != now.sorted_names:
        there = f"{now.first} ... {now.last} where it was {before.first} ... {before.last}"
        return f"as many images, but of other names ({there})"
    if before.classes != now.classes:
        return "the same images, but the classes have other names"
    return "the same images, but in another order or with other labels"
