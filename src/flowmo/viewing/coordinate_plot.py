"""The coordinate check plots activations against width, step by step (Tensor Programs V, Figure 5)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Protocol

from .plots import COLORS, FAINT, MARKERS, new_figure, styled

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

KINDS = {
    "readout": "readouts",
    "logits": "attention logits",
    "modulation": "modulations",
    "time_embedding": "time embedding",
    "_in": "input layers",
    "": "outputs of blocks",
}
"""What a layer is called by what its name ends with, the first that fits."""


class Point(Protocol):
    """One layer at one width after so many steps."""

    @property
    def factor(self) -> int:
        """Return the width by the base width."""
        ...

    @property
    def step(self) -> int:
        """Return the number of steps taken."""
        ...

    @property
    def layer(self) -> str:
        """Return the name of the layer."""
        ...

    @property
    def size(self) -> float:
        """Return the mean size of its activations."""
        ...

    @property
    def change(self) -> float:
        """Return the mean change of its activations since the start."""
        ...


def coordinate_figure(results: Mapping[str, Sequence[Point]], title: str, note: str) -> Figure:
    """Return a figure of activations against width, both axes logarithmic, one row a parametrisation.

    A row has the mean size of the activations at the start, then their mean change after each step.
    The encoder's layers are solid lines, the decoder's dashed ones.
    """
    steps = sorted({point.step for points in results.values() for point in points})
    figure = new_figure(2.1 * len(steps) + 1.8, 2.6 * len(results) + 1.0, title, note)
    with styled():
        grid = figure.subplots(len(results), len(steps), squeeze=False, sharex=True, sharey="col")
        for row, (name, points) in zip(grid, results.items(), strict=True):
            for axes, step in zip(row, steps, strict=True):
                _panel(axes, [point for point in points if point.step == step])
            row[0].set_ylabel(f"{name}\nmean over coordinates")
        for axes, step in zip(grid[0], steps, strict=True):
            axes.set_title(f"change after {step} step{'s' * (step > 1)}" if step else "size at the start", loc="center")
        for axes in grid[-1]:
            axes.set_xlabel("width / base width")
        lines = {line.get_label(): line for axes in grid.flat for line in axes.get_lines()}
        named = [(lines[kind], kind) for kind in KINDS.values() if kind in lines]
        figure.legend(*zip(*named, strict=True), loc="outside right center")
    return figure


def _panel(axes: Axes, points: Sequence[Point]) -> None:
    for layer in dict.fromkeys(point.layer for point in points):
        kind = next(i for i, end in enumerate(KINDS) if layer.endswith(end))
        line = [(p.factor, p.change if p.step else p.size) for p in points if p.layer == layer]
        line = [(x, y) for x, y in sorted(line) if y > 0]
        if line:
            axes.plot(
                *zip(*line, strict=True),
                color=COLORS[kind],
                marker=MARKERS[kind],
                markersize=3,
                linewidth=1.1,
                linestyle="-" if layer.startswith("encoder") else "--",
                label=list(KINDS.values())[kind],
            )
    factors = sorted({point.factor for point in points})
    axes.set_xscale("log", base=2)
    axes.set_yscale("log", base=10)
    axes.set_xticks(factors, [str(factor) for factor in factors])
    axes.minorticks_off()
    axes.grid(color=FAINT)
