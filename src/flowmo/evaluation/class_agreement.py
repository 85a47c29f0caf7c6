"""A classifier, its places learned from a data set, counts how often it sees the class that was asked for (E8)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch

from ..data import ImageSource, to_uint8
from ..errors import DataError, ImageError
from .evaluate import Processes
from .generated import Logits, Samples, agreement, class_places, logits_of
from .reference import ALONE, Crop, prepared

A_CLASS = 20
"""Pictures of each class of the reference that the classifier sees."""


def has_labels(source: ImageSource, samples: Sequence[Samples]) -> bool:
    """Return whether both the reference and some of the samples have labels."""
    return source.label(0) is not None and any(each.labels is not None for each in samples)


def class_agreement(
    source: ImageSource,
    size: int,
    logits: Logits,
    device: torch.device,
    crop: Crop = "model",
    processes: Processes = ALONE,
) -> Callable[[Samples], dict[str, float]]:
    """Return a function that gives the share of samples whose likeliest class is the asked one.

    Beside it stand that share of the reference and that of chance. Samples without labels, or with others than the
    reference has, get no numbers; nor do processes but the first.
    source: the reference, with labels.
    size: of the samples, in pixels.
    logits: the classifier.
    crop: as of :func:`reference_of`.
    processes: those that share the work; all must call the function.
    Raises DataError where a class has no picture.
    """
    found = processes.gather(_own_logits(source, size, logits, device, crop, processes))
    rows = sorted(((place, label, row) for each in found for place, label, row in each), key=lambda image: image[0])
    if not rows:
        raise DataError("the reference has no picture with a label that can be read")
    labels, reference = np.array([label for _, label, _ in rows]), np.stack([row for _, _, row in rows])
    places = class_places(reference, labels)
    own = agreement(reference, labels, places)

    def share(each: Samples) -> dict[str, float]:
        if each.labels is None or each.labels.max() >= len(places) or each.labels.min() < 0:
            return {}
        parts = processes.collect(logits_of(each.pixels, logits, device, processes))
        if parts is None:
            return {}
        asked = agreement(np.concatenate(parts), each.labels, places)
        return {"agreement": asked, "agreement_reference": own, "agreement_chance": 1 / len(places)}

    return share


def _own_logits(
    source: ImageSource, size: int, logits: Logits, device: torch.device, crop: Crop, processes: Processes
) -> list[tuple[int, int, np.ndarray]]:
    """Return place, label and logits (1000,) of the reference's pictures in this process's classes."""
    images = list(some_of_each(source, size, crop, processes))
    if not images:
        return []
    rows = logits_of(np.stack([pixels for _, _, pixels in images]), logits, device)
    return [(place, label, row) for (place, label, _), row in zip(images, rows, strict=True)]


def some_of_each(
    source: ImageSource, size: int, crop: Crop = "model", processes: Processes = ALONE
) -> Iterator[tuple[int, int, np.ndarray]]:
    """Yield the first pictures of each class, at most A_CLASS: their places, labels and pixels, uint8 size size 3.

    processes: those that share the classes.
    """
    seen: dict[int, int] = {}
    for place in range(len(source)):
        label = source.label(place)
        if label is None or label % processes.size != processes.rank or seen.get(label, 0) >= A_CLASS:
            continue
        try:
            image = prepared(source, place, size, crop)
        except ImageError:
            continue
        seen[label] = seen.get(label, 0) + 1
        yield place, label, to_uint8(image).permute(1, 2, 0).numpy()
