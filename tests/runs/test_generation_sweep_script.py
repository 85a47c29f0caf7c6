"""runs/generation_sweep.sh samples and measures the packaged generator in both conventions, and does nothing twice.
What it runs, ``generate`` and ``evaluate-generator``, has its fast tests in tests/cli."""

from __future__ import annotations

import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import warm_python
from flowmo import samples
from flowmo.errors import WeightsError
from flowmo.evaluation.results import read_result
from flowmo.metrics.features import load_inception

ROOT = Path(__file__).parents[2]


@pytest.mark.nightly
def test_both_conventions_become_results(tmp_path: Path) -> None:
    try:
        load_inception()
    except WeightsError as error:
        pytest.skip(str(error))
    for i, path in enumerate(samples.paths()[:4]):
        folder = tmp_path / "data" / "validation" / "ab"[i % 2]
        folder.mkdir(parents=True, exist_ok=True)
        with Image.open(path) as picture:
            picture.resize((64, 64)).save(folder / f"{path.stem}.png")
    settings = warm_python.environment() | {
        "EACH": "2",
        "STEPS": "2",
        "SETTINGS": "maskgit:3:1:4.5 titok:2:1.3:2.8",
        "FLOWMO_CACHE": str(tmp_path / "cache"),
    }

    def run() -> str:
        done = subprocess.run(
            [
                ROOT / "runs" / "generation_sweep.sh",
                tmp_path / "data",
                tmp_path / "out",
                "--class",
                "0",
                "--class",
                "1",
            ],
            env=settings,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
            timeout=300,
        )
        assert done.returncode == 0, done.stdout[-4000:]
        return done.stdout

    assert run().count("+ flowmo") == 3
    pixels = []
    for name in ("maskgit-guidance-3-temperature-1-noise-4.5", "titok-guidance-2-temperature-1.3-noise-2.8"):
        assert read_result(tmp_path / "out" / "results" / f"{name}.json").data.count == 4
        with np.load(tmp_path / "out" / "samples" / f"{name}.npz") as file:
            pixels.append(file["arr_0"])
    assert not np.array_equal(*pixels)
    assert "+ flowmo" not in run(), "what is done was done again"
