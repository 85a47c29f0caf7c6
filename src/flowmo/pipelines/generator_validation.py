"""Validation of a generator in training: the loss of held-out tokens, and sample images (Section 3.5)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..data import to_image
from ..generation import generate
from ..training import GeneratorTrainConfig, World
from ..training.data.token_data import TokenSet
from ..training.generator import held_out
from ..viewing import titled_images, write_png
from .class_images import Detokenizer, title

SAMPLES, HELD_OUT = 16, 256  # images of a contact sheet, and of a validation


def make_generator_validation(
    data: TokenSet,
    config: GeneratorTrainConfig,
    folder: Path,
    world: World,
    held: int = HELD_OUT,
    samples: int = SAMPLES,
    tokenizer: Detokenizer | None = None,
) -> Callable[[Any, int], dict[str, Any]]:
    """Return a function of (model, images seen) for the training loop, which every process calls for its share.

    It returns the cross-entropy of the tokens of ``held`` images, and writes ``samples`` images of some classes to
    ``folder`` where there is a tokenizer to decode them.
    """

    def validate(model: Any, images: int) -> dict[str, Any]:
        numbers = held_out(model, data, config, held, world)._asdict()
        if tokenizer is None:
            return numbers
        count, own, seeds = model.config.num_classes, world.part(samples), list(range(samples))
        labels = [i * count // samples if count >= samples else i % count for i in range(samples)]
        found = []
        if labels[own]:
            for tokens in generate(model, labels[own], replace(model.config.decoding, num_steps=16), seeds[own]):
                found += [to_image(image) for image in tokenizer.detokenize(tokens).cpu()]
        found = [image for each in world.gather(found) for image in each]
        if world.main:
            sheet = titled_images([title(model, label) for label in labels], found)
            write_png(folder / f"{images:010d}.png", sheet)
        return numbers

    return validate
