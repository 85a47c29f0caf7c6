"""docs/COMING_FROM.md: its Python runs as printed, one block after another."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from PIL import Image

from flowmo import samples
from flowmo.cli.main import main

PAGE = (Path(__file__).parents[2] / "docs" / "COMING_FROM.md").read_text()
BLOCKS = re.findall(r"^```python\n(.*?)^```", PAGE, flags=re.MULTILINE | re.DOTALL)


def test_diffusers_shape(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("diffusers", reason="needs diffusers: pip install 'flowmo[diffusers]'")
    monkeypatch.chdir(tmp_path)
    found: dict = {}
    exec(BLOCKS[0], found)
    assert found["images"].shape == (1, 3, 256, 256)
    assert found["latents"].shape == (1, 256, 56)


def test_tokens_for_other_models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for i, path in enumerate(samples.paths()[:4]):
        target = tmp_path / "photos" / str(i % 2) / f"{path.stem}.png"
        target.parent.mkdir(parents=True, exist_ok=True)
        Image.open(path).resize((64, 64)).save(target)
    size = ["--size", "128", "--bits-per-token", "18"]
    assert main(["tokenize", "photos/", *size, "--labels", "--out", "tokens.npy"]) == 0
    found: dict = {}
    exec(BLOCKS[1] + BLOCKS[2], found)
    assert found["tokens"].shape == (4, 128)
    assert [picture.size for picture in found["pictures"]] == [(128, 128)] * 4
    assert len(BLOCKS) == 3
