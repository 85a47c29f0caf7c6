"""Real tokens: photographs of some classes, coded by the packaged tokenizer, whose tokens our generator draws."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

import flowmo
from flowmo.codec import Shard
from flowmo.data import open_images, shorter_side_to, to_tensor

PACKAGED_FINGERPRINT = "f50a5735"


def photographs_of(data: Path, classes: Sequence[int], count: int, side: int) -> tuple[Tensor, list[int], list[str]]:
    """``count`` validation pictures of each class: B 3 side side, labels in the order of ``classes``, names."""
    source = open_images(data, split="validation")
    labels = np.array([source.label(i) for i in range(len(source))])
    places = [int(i) for c in classes for i in np.flatnonzero(labels == c)[:count]]
    images = torch.stack([to_tensor(shorter_side_to(source[i], side)) for i in places])
    return images, [k for k in range(len(classes)) for _ in range(count)], [source.name(i) for i in places]


def coded(
    data: Path, classes: Sequence[int], names: Sequence[str], count: int, side: int = 64, bits: int = 18
) -> Shard:
    """Their tokens of ``bits`` bits by the packaged tokenizer, with labels; of pictures of ``side`` pixels."""
    images, labels, files = photographs_of(data, classes, count, side)
    model = flowmo.load()
    tokens = model.tokenize(images).truncate(bits=bits)
    return Shard(tokens, files, torch.tensor(labels), model.fingerprint(), "crop", None, list(names))
