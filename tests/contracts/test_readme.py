"""The README's Python runs as printed, in a folder that holds what a reader would have: a photo and weights."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from PIL import Image

from flowmo import samples
from flowmo.config import FlowMoConfig, TransformerConfig
from flowmo.weights import official_layout

README = (Path(__file__).parents[2] / "README.md").read_text()
EXAMPLES = re.findall(r"^```python\n(.*?)^```", README, flags=re.MULTILINE | re.DOTALL)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    photo = Image.open(samples.paths()[0])
    photo.resize((300, 200)).save("photo.jpg")
    return tmp_path


def test_with_the_packaged_model(folder: Path) -> None:
    found: dict = {}
    exec(EXAMPLES[0], found)
    assert len(found["payload"]) == 1792
    assert Image.open(folder / "again.png").size == (256, 256)
    assert len(found["short"].to_bytes()[0]) == 576
    assert found["whole"].image_size == (208, 304)  # 200 x 300 pixels in whole patches


def test_with_a_released_file(folder: Path) -> None:
    """A file in the released format under its name, but narrow: the example takes it like the real one."""
    narrow = TransformerConfig(patch_size=32, width=32, depth=1, heads=1)
    layout = official_layout(FlowMoConfig(encoder=narrow, decoder=narrow))
    state = {key: 0.05 * torch.randn(slot.shape) for key, slot in layout.items()}
    torch.save({"total_steps": 1, "model_state_dict": state, "model_ema_state_dict": state}, "flowmo_lo.pth")
    found: dict = {}
    exec(EXAMPLES[1], found)
    assert len(found["tokens"].to_bytes()[0]) == 576
    assert Image.open(folder / "again.png").size == (256, 256)


def test_no_example_is_forgotten() -> None:
    assert len(EXAMPLES) == 2
