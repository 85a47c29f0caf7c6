"""tools/measure_grid.py: it sees a grid in even regions, and no brightness or slope."""

from __future__ import annotations

import re
import runpy
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[2]
TOOL = runpy.run_path(str(ROOT / "tools" / "measure_grid.py"))


def test_texture_is_of_a_grid_and_not_of_a_slope() -> None:
    """Of a grid of period 4 pixels a blur of 1.5 pixels leaves nearly nothing."""
    slope = torch.linspace(-0.8, 0.8, 64).expand(1, 3, 64, 64)
    inner = (..., slice(1, -1), slice(1, -1))  # the border is mirrored, which bends a slope
    assert TOOL["texture"](slope)[inner].max() < 0.01
    lines = torch.tensor([1.0, 0.0, -1.0, 0.0]).repeat(16)
    grid = 5 / 127.5 * lines.expand(1, 3, 64, 64)  # 5 of 255 steps, 3.5 root mean square
    found = TOOL["texture"](slope + grid)
    assert found.shape == (1, 1, 4, 4)
    assert torch.allclose(found[inner], torch.tensor(5 / 2**0.5), rtol=0.08)


def test_the_tool_prints_the_packaged_models_ratios(capsys: pytest.CaptureFixture[str]) -> None:
    TOOL["main"]([str(ROOT / "src" / "flowmo" / "samples"), "flowmo-mini", "--count", "3"])
    first, *rows = capsys.readouterr().out.splitlines()
    assert "even blocks" in first
    found = [re.fullmatch(r"flowmo-mini, (\d+) bits a token: even (\S+), middling (\S+)", row) for row in rows]
    assert [row[1] for row in found if row] == ["18", "56"]
    for row in found:
        assert row is not None
        assert float(row[3]) < 1 < float(row[2]) < 2  # fine textures are softer, even regions not quite even
