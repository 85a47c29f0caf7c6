"""runs/packaged.sh at a tiny size: every phase, a second call that does nothing again, and the package."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import numpy as np
import pytest

import warm_python
from flowmo.data import open_images
from flowmo.weights import load_model

ROOT = Path(__file__).parents[2]
MODEL = (
    "encoder.depth=1 encoder.width=64 encoder.heads=1 decoder.depth=1 decoder.width=64 decoder.heads=1 "
    "image_size=64 num_tokens=64"
)
TINY = {
    "PRESET": "flowmo-mini-8", "MODEL": MODEL, "CROP": "32", "BATCH": "4", "WORKERS": "0", "PERCEPTUAL": "0",
    "CROPS": "16", "LPIPS": "16", "WHOLE": "16", "COOL": "8", "SEEKING": "8", "WEIGHT": "0", "CHECKS": "4",
    "RATES": "9 18", "METRICS": "psnr", "COUNT": "4",
}  # fmt: skip


@pytest.mark.parametrize("last", ["distill"])
def test_all_phases_of_the_packaged_model(last: str, shared: Path, tmp_path: Path) -> None:
    data, out = tmp_path / "data", tmp_path / "out"
    for part, count in (("train", 24), ("validation", 8)):
        source = open_images(shared / "data" / "tiny64", split=part)
        (data / part).mkdir(parents=True)
        for place in np.linspace(0, len(source) - 1, count, dtype=int):
            source[int(place)].save(data / part / f"{place}.png")
    settings = {"LAST": last} | TINY

    def run() -> str:
        done = subprocess.run(
            ["bash", str(ROOT / "runs" / "packaged.sh"), str(data), str(out), "3h"],
            env=warm_python.environment() | settings,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout[-4000:]
        return done.stdout

    first = run()
    for name in ("1-crops", "2-lpips", "3-whole", "4-seeking"):
        assert (out / name / "model.safetensors").exists()
    card = json.loads((out / "package" / "card.json").read_text())
    assert card["tokens_of_the_start"] is True
    assert [row["bytes"] for row in card["rates"]] == [72, 144]
    assert card["rates"][1]["psnr"] > card["rates"][0]["psnr"]
    packed = load_model(out / "package" / "flowmo-mini-8.safetensors")
    assert packed.fingerprint() == load_model(out / "start.safetensors").fingerprint()
    second = run()
    assert first.count("first update of") == 4
    assert "first update of" not in second
    assert "measured already" in second
