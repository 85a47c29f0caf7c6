"""Stage 2: tokens of a tokenizer drawn for classes, in batches (Section 3.5)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch

from ..errors import ConfigError
from ..quantize.tokens import Tokens
from .decode import DecodeSettings, OnStep, decode
from .groups import to_tokens
from .model import NO_CLASS, Generator


def image_seed(number: int, label: int) -> int:
    """Return the seed of image ``number`` of a class, which differs between classes and numbers."""
    words = np.random.SeedSequence([number, label + 1]).generate_state(1, np.uint64)
    return int(words[0] >> np.uint64(1))


def generate(
    generator: Generator,
    labels: Sequence[int],
    settings: DecodeSettings,
    seeds: Sequence[int],
    batch_size: int = 16,
    on_step: OnStep | None = None,
    whole_batches: bool = False,
) -> Iterator[Tokens]:
    """Yield the tokens of an image for each label, in order, ``batch_size`` images at a time.

    labels: ``NO_CLASS`` draws without a class.
    seeds: one an image; the batch size does not change an image.
    whole_batches: fills the last batch up with its last image, so that a compiled generator sees one shape; the fill
    is not yielded.
    Raises ConfigError for a label out of range, or where seeds are missing.
    """
    config = generator.config
    for label in labels:
        if not (0 <= label < config.num_classes or label == NO_CLASS):
            raise ConfigError(f"there is no class {label}; the generator knows 0 to {config.num_classes - 1}")
    if len(seeds) != len(labels):
        raise ConfigError(f"{len(seeds)} seeds for {len(labels)} images; give one an image")
    for i in range(0, len(labels), batch_size):
        places = [*range(i, min(i + batch_size, len(labels)))]
        count = len(places)
        if whole_batches:
            places += [places[-1]] * (batch_size - count)
        some = torch.tensor([labels[k] for k in places], dtype=torch.int64, device=generator.device)
        own = [seeds[k] for k in places]
        sequence = decode(generator, some, config.sequence_length, settings, own, on_step, config.groups)
        yield to_tokens(sequence[:count], config)
