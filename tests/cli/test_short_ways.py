"""From a command to what it is for, the loss or the metric, lie few functions: a reader follows them by hand."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
from command_support import CAT, Command

PACKAGE = Path(__file__).parents[2] / "src" / "flowmo"
MOST = 8
"""Functions of the package on the way, the command's ``run`` and the loss or metric themselves among them."""
COMPREHENSIONS = ("<listcomp>", "<dictcomp>", "<setcomp>", "<genexpr>")  # no functions, though they have frames

TRAIN = ("train", CAT.parent, "o", "--preset", "tiny", "--set", "images=8", "batch_size=8", "losses.perceptual=0")
EVALUATE = ("evaluate", "WEIGHTS", CAT.parent, "--limit", 2, "--metrics", "psnr", "ssim")
COMPARE = ("compare", CAT.parent, "--models", "WEIGHTS", "--limit", 2, "--metrics")


def way_to(frame: FrameType | None) -> Iterator[str]:
    """Yield "file:function" of the package's functions from this one up to the command's ``run``."""
    while frame is not None:
        path = Path(frame.f_code.co_filename)
        if PACKAGE in path.parents and frame.f_code.co_name not in COMPREHENSIONS:
            if path == PACKAGE / "cli" / "main.py":
                return
            yield f"{path.relative_to(PACKAGE)}:{frame.f_code.co_name}"
        frame = frame.f_back


@pytest.mark.parametrize(
    ("command", "ends"),
    [
        (TRAIN, {"stages/mode_matching.py:mode_matching_loss"}),
        (EVALUATE, {"metrics/pixels.py:psnr_uint8", "metrics/pixels.py:ssim_uint8", "metrics/table.py:_psnr"}),
        (COMPARE, {"metrics/pixels.py:psnr_uint8", "perceptual/lpips.py:forward", "metrics/table.py:_psnr"}),
    ],
    ids=["train", "evaluate", "compare"],
)
def test_the_way_from_the_command_to_the_loss_or_metric_is_short(
    command: tuple[object, ...],
    ends: set[str],
    flowmo: Command,
    weights: Path,
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
) -> None:
    if command is COMPARE:
        request.getfixturevalue("lpips")
    monkeypatch.setenv("FLOWMO_CACHE", str(Path("cache").resolve()))
    names = {end.partition(":")[2] for end in ends}
    ways: dict[str, list[str]] = {}

    def called(frame: FrameType, event: str, _: Any) -> None:
        if event == "call" and frame.f_code.co_name in names:
            way = list(way_to(frame))[::-1]
            if way and way[-1] in ends and len(way) > len(ways.get(way[-1], ())):
                ways[way[-1]] = way  # the longest to each

    sys.setprofile(called)
    try:
        result = flowmo(*(weights if word == "WEIGHTS" else word for word in command), model=False)
    finally:
        sys.setprofile(None)
    assert result.code == 0, result.err
    assert set(ways) == ends
    for way in ways.values():
        assert way[0] == f"cli/{command[0]}.py:run"
        assert len(way) <= MOST, way
