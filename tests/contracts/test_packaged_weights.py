"""The weights that come with the package: small enough, of the configuration that bears their name, and trained."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from torch import Tensor

import flowmo
from flowmo.generation import PACKAGED_GENERATOR, generator_path
from flowmo.metrics.pixels import psnr, thumbnail
from flowmo.perceptual import load_lpips
from flowmo.presets import PRESETS
from flowmo.weights import load_model
from flowmo.weights.load import PACKAGED, packaged_path

FILES = sorted(packaged_path(PACKAGED).parent.glob("*.safetensors"))


def test_all_together_stay_below_64_megabytes() -> None:
    """Tokenizers and generators."""
    assert sum(path.stat().st_size for path in [*FILES, generator_path(PACKAGED_GENERATOR)]) < 64_000_000


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_they_are_the_preset_of_their_name(path: Path) -> None:
    """But for the sampler, which is chosen for the trained weights."""
    preset = PRESETS[path.stem]()
    assert load_model(path, preset.sampler).config == preset


def test_the_code_carries_the_picture(samples: Callable[[int], Tensor]) -> None:
    """Another picture's code costs at least 3 dB, and the same bits spent on a thumbnail are further off by LPIPS."""
    model = flowmo.load()
    pictures = samples(model.config.image_size)
    tokens = model.tokenize(pictures)
    again = model.detokenize(tokens)
    assert psnr(again, pictures).mean() > psnr(again.roll(1, 0), pictures).mean() + 3
    lpips = load_lpips("alex")
    assert (lpips(again, pictures) < lpips(thumbnail(pictures, tokens.bits_per_image), pictures)).all()
