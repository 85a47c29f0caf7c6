"""The weights that come with the package: small enough, and of the configuration that bears their name."""

from __future__ import annotations

from pathlib import Path

import pytest

from flowmo import samples
from flowmo.presets import PRESETS
from flowmo.weights import load_model

FILES = sorted((Path(samples.__file__).parents[1] / "weights" / "packaged").glob("*.safetensors"))


def test_all_together_stay_below_57_megabytes() -> None:
    assert sum(path.stat().st_size for path in FILES) < 57_000_000


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_they_are_the_preset_of_their_name(path: Path) -> None:
    """But for the sampler, which is chosen for the trained weights."""
    preset = PRESETS[path.stem]()
    assert load_model(path, preset.sampler).config == preset
