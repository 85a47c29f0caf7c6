"""The coordinate check as a user runs it: table, plot and JSON agree; what can go wrong is said."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from command_support import Command
from PIL import Image

QUICK = ("--widths", 4, 1, 2, "--seeds", 1, "--steps", 3, "--count", 4)


def test_table_plot_and_json(flowmo: Command) -> None:
    result = flowmo("coordinate-check", *QUICK, "--out", "o", model=False)
    found = json.loads(Path("o/coordinate-check.json").read_text())
    assert result.code == (1 if found["off"] else 0)
    assert found["widths"] == [1, 2, 4]
    for name in ("muP", "PyTorch's default"):
        layers = [slope["layer"] for slope in found["slopes"][name]]
        assert {(p["factor"], p["step"], p["layer"]) for p in found["coordinates"][name]} == {
            (factor, step, layer) for factor in (1, 2, 4) for step in range(4) for layer in layers
        }
        assert all(layer in result.out for layer in layers)
    mup, default = (
        {slope["layer"]: slope["change"] for slope in found["slopes"][name]} for name in ("muP", "PyTorch's default")
    )
    assert abs(mup["encoder readout"]) < 0.25 < default["encoder readout"]
    with Image.open("o/coordinate-check.png") as image:
        pixels = np.asarray(image.convert("RGB"))
    assert min(pixels.shape[:2]) > 500
    assert pixels.std() > 20
    assert flowmo("coordinate-check", *QUICK, "--out", "o", model=False).code == 2  # not over what is there


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--widths", 2], "two different widths"),
        (["--steps", 2], "at least 3 steps"),
        (["--preset", "huge"], "no preset 'huge'"),
        (["--learning-rate", 0], "must be positive"),
        (["--learning-rate", 1e30, "--widths", 1, 2], "lower the learning rate"),
        (["nowhere"], "no such file or folder"),
        (["--model", "encoder.hedas=2"], "did you mean 'encoder.heads'"),
    ],
)
def test_wrong_use(arguments: list[object], said: str, flowmo: Command) -> None:
    result = flowmo("coordinate-check", *arguments, "--out", "o", model=False)
    assert result.code == 2
    assert said in result.err
    assert not list(Path("o").glob("*"))
