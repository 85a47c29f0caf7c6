"""The generator that comes with the package: of the packaged tokenizer, and trained."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch
import torch.nn.functional as F
from token_support import PACKAGED_FINGERPRINT, coded

from flowmo.generation import PACKAGED_GENERATOR, generator_path, load_generator, to_sequence
from flowmo.generation.presets import maskgit_mini

CLASSES = {0: "goldfish", 41: "bullet train", 89: "plate", 93: "orange", 96: "alp", 99: "seashore"}


def test_it_is_the_preset_over_the_packaged_tokenizer() -> None:
    generator = load_generator(PACKAGED_GENERATOR)
    own = {"bits_per_group": 9, "bit_order": "consecutive", "decoding": generator.config.decoding}
    assert generator.config == replace(maskgit_mini(generator.config.tokens), **own)
    assert generator.config.tokens.fingerprint == PACKAGED_FINGERPRINT
    assert generator_path(PACKAGED_GENERATOR).stat().st_size < 10_000_000
    assert [generator.classes[c].split(maxsplit=1)[1] for c in CLASSES] == list(CLASSES.values())


@torch.no_grad()
def test_it_knows_held_out_pictures_and_their_classes(shared: Path) -> None:
    """Of the first integers of the tokens, which hold what is coarse: far better than even guesses, and better with the
    right classes than with none or others."""
    generator = load_generator(PACKAGED_GENERATOR)
    layout = generator.config.tokens
    kind = layout.image_size[0], layout.bits_per_token
    shard = coded(shared / "data" / "tiny64", list(CLASSES), list(CLASSES.values()), 8, *kind)
    tokens = to_sequence(shard.tokens, 9, generator.config.bit_order)
    labels = torch.tensor(list(CLASSES)).repeat_interleave(8)
    mask = torch.rand(tokens.shape, generator=torch.Generator().manual_seed(0)) < 0.9

    coarse = mask & (torch.arange(tokens.shape[1]) % generator.config.groups == 0)

    def nats(labels: torch.Tensor) -> float:
        return float(F.cross_entropy(generator(tokens, labels, mask)[coarse], tokens[coarse]))

    right, without, wrong = nats(labels), nats(torch.full_like(labels, -1)), nats(labels.roll(16))
    assert right < 4.2  # even guesses: 6.24
    assert right < without - 0.05
    assert right < wrong - 0.2
