"""The closed-form transform code as a row of a comparison: what any learned code has to beat (O12)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from ..arch.transform import TransformEncoder
from ..config import FlowMoConfig
from ..data import SpreadImages, open_images
from ..errors import ConfigError
from ..fit_transform import default_rates, fit_transform
from ..presets import flowmo_mini, flowmo_mini_8
from ..tokenizer import FlowMo
from ..weights import load_model, save_model

NAME = "transform"
IMAGES = 2_000
"""Of the training split, at most, that the code is fitted on."""


def transform_code(
    data: str,
    kept: Path,
    targets: Sequence[int],
    size: tuple[int, int],
    say: Callable[[str], None] = lambda line: None,
) -> FlowMo:
    """Return the code fitted on the training split of ``data``, or read it from the file where it was kept before.

    targets: numbers of bytes an image. size: (height, width) in pixels.
    Raises ConfigError for a size that it cannot have, and for data without a training split.
    """
    if kept.exists():
        return load_model(kept)
    source = open_images(data, None, "train")
    config = transform_for(targets, size)
    say(f"fitting the transform code of {config.bits_per_token} bits a token on the training images")
    model = fit_transform(config, SpreadImages(source, config.image_size, IMAGES))
    save_model(model, kept, about={"weights": "the closed-form code", "images": 0})
    return load_model(kept)


def transform_for(targets: Sequence[int], size: tuple[int, int]) -> FlowMoConfig:
    """Return the smallest model whose code has the bits of the largest number of bytes an image.

    Its patch is 16 pixels, or 8 for images of which that would be few. Raises ConfigError where the size is no multiple
    of the patch.
    """
    base = flowmo_mini() if min(size) >= 128 else flowmo_mini_8()
    assert base.transform is not None
    patch = base.transform.patch_size
    if size[0] % patch or size[1] % patch:
        raise ConfigError(f"the transform code needs sides that are multiples of {patch}; choose another --size")
    tokens = size[0] * size[1] // patch**2
    bits = max(1, min(max(targets) * 8 // tokens, 96))
    class_bits = min(base.transform.class_bits, bits // 3)
    transform = replace(base.transform, class_bits=class_bits, rates=default_rates(bits))
    side = min(size)
    shape = replace(base.encoder, width=64, depth=1, heads=1)  # of a transformer that adds nothing
    return replace(
        base,
        encoder=shape,
        decoder=shape,
        transform=transform,
        bits_per_token=bits,
        image_size=side,
        num_tokens=(side // patch) ** 2,
    )


def check_closed_form(model: FlowMo, name: str) -> FlowMo:
    """Return the model itself, if it is a transform code that was never trained; else raise ConfigError."""
    if not isinstance(model.encoder, TransformEncoder) or bool(model.decoder.readout.weight.any()):
        raise ConfigError(f"--transform {name}: no closed-form code; make one by flowmo fit-transform")
    return model
