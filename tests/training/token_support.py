"""Real tokens: photographs of some classes, coded by flowmo-mini-64, whose tokens the packaged generator draws."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

import flowmo
from flowmo.codec import Shard
from flowmo.data import open_images, to_tensor

PACKAGED_FINGERPRINT = "d8db2373"


def photographs_of(data: Path, classes: Sequence[int], count: int) -> tuple[Tensor, list[int], list[str]]:
    """``count`` validation pictures of each class: B 3 64 64, labels 0, 1, ... in the order of ``classes``, names."""
    source = open_images(data, split="validation")
    labels = np.array([source.label(i) for i in range(len(source))])
    places = [int(i) for c in classes for i in np.flatnonzero(labels == c)[:count]]
    images = torch.stack([to_tensor(source[i]) for i in places])
    return images, [k for k in range(len(classes)) for _ in range(count)], [source.name(i) for i in places]


def coded(data: Path, classes: Sequence[int], names: Sequence[str], count: int) -> Shard:
    """Their tokens by flowmo-mini-64, with labels."""
    images, labels, files = photographs_of(data, classes, count)
    model = flowmo.load("flowmo-mini-64")
    tokens = model.tokenize(images)
    return Shard(tokens, files, torch.tensor(labels), model.fingerprint(), "crop", None, list(names))
