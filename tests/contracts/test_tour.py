"""examples/tour.ipynb: every cell runs, in order, as a reader would run it, with a shorter training."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from flowmo.errors import WeightsError
from flowmo.perceptual import load_lpips

TOUR = json.loads((Path(__file__).parents[2] / "examples" / "tour.ipynb").read_text())
CODE = ["".join(cell["source"]) for cell in TOUR["cells"] if cell["cell_type"] == "code"]


def test_the_tour_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    matplotlib = pytest.importorskip("matplotlib", reason="needs matplotlib: pip install 'flowmo[eval]'")
    try:
        load_lpips("vgg")
    except WeightsError as error:
        pytest.skip(str(error))
    matplotlib.use("Agg")
    monkeypatch.chdir(tmp_path)
    found: dict = {}
    for cell in CODE:
        if not any(line.startswith("%pip") for line in cell.splitlines()):
            exec(cell.replace("IMAGES = 1000", "IMAGES = 16"), found)
    assert found["code"] == 0
    assert "1792 bytes, 0.219 bits per pixel" in capsys.readouterr().out
    assert found["trained"].config.image_size == 32
    assert all(value > 15 for value in found["psnr"].tolist())
    assert len(found["curve"]) == 10
    assert sorted(found["ours"]) == found["ours"], "more bytes are not nearer"


def test_it_is_kept_without_outputs() -> None:
    assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in TOUR["cells"] if "outputs" in cell)
