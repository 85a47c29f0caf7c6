"""A classifier, its places learned from a data set, counts how often it sees the class that was asked for (E8)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch

from ..data import ImageSource, to_uint8
from ..errors import ImageError
from ..perceptual.classifier import Classifier
from .generated import Samples, agreement, class_places, logits_of
from .reference import Crop, prepared

A_CLASS = 20
"""Pictures of each class of the reference that the classifier sees."""


def has_labels(source: ImageSource, samples: Sequence[Samples]) -> bool:
    """Return whether both the reference and some of the samples have labels."""
    return source.label(0) is not None and any(each.labels is not None for each in samples)


def class_agreement(
    source: ImageSource, size: int, classifier: Classifier, device: torch.device, crop: Crop = "model"
) -> Callable[[Samples], dict[str, float]]:
    """Return a function that gives the share of samples whose likeliest class is the asked one.

    Beside it stand that share of the reference and that of chance. Samples without labels, or with others than the
    reference has, get no numbers.
    source: the reference, with labels.
    size: of the samples, in pixels.
    crop: as of :func:`reference_of`.
    Raises DataError where a class has no picture.
    """
    pixels, labels = some_of_each(source, size, crop)
    logits = logits_of(pixels, classifier, device)
    places = class_places(logits, labels)
    own = agreement(logits, labels, places)

    def share(each: Samples) -> dict[str, float]:
        if each.labels is None or each.labels.max() >= len(places) or each.labels.min() < 0:
            return {}
        found = agreement(logits_of(each.pixels, classifier, device), each.labels, places)
        return {"agreement": found, "agreement_reference": own, "agreement_chance": 1 / len(places)}

    return share


def some_of_each(source: ImageSource, size: int, crop: Crop = "model") -> tuple[np.ndarray, np.ndarray]:
    """Return the first pictures of each class, at most A_CLASS, uint8 N size size 3, and their labels (N,)."""
    seen: dict[int, int] = {}
    pixels, labels = [], []
    for place in range(len(source)):
        label = source.label(place)
        if label is None or seen.get(label, 0) >= A_CLASS:
            continue
        try:
            image = prepared(source, place, size, crop)
        except ImageError:
            continue
        seen[label] = seen.get(label, 0) + 1
        pixels.append(to_uint8(image).permute(1, 2, 0).numpy())
        labels.append(label)
    return np.stack(pixels), np.array(labels)
