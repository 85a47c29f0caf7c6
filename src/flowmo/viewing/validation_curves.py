"""Curves of the validations of Stage 1B show whether images get better, or only what is minimised (Section 3.3)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ..metrics.table import column
from .plots import COLORS, FAINT, MARKERS, new_figure, styled

if TYPE_CHECKING:
    from matplotlib.figure import Figure

CURVES = {"distance": "distance that is minimised"} | {name: column(name).axis for name in ("rfid", "lpips", "psnr")}


def validation_figure(validations: Sequence[Mapping[str, Any]], best: int) -> Figure:
    """Return a figure of the validations against the images seen, one panel a number.

    All numbers are of the same held-out images.
    best: the images seen at the validation whose weights are kept, a line in every panel.
    Raises ConfigError without matplotlib.
    """
    names = [name for name in CURVES if all(name in validation for validation in validations)]
    note = f"{validations[-1].get('network', '')}; the line marks the weights that are kept, at {best:,} images"
    figure = new_figure(2.9 * len(names), 3.0, "Stage 1B on held-out images", note)
    images = [validation["images"] for validation in validations]
    with styled():
        grid = figure.subplots(1, len(names), squeeze=False)
        for i, (axes, name) in enumerate(zip(grid[0], names, strict=True)):
            axes.axvline(best, color="#888888", linewidth=0.8)
            numbers = [validation[name] for validation in validations]
            axes.plot(images, numbers, color=COLORS[i], marker=MARKERS[i], markersize=4)
            axes.set_title(CURVES[name])
            axes.set_xlabel("images seen")
            axes.grid(color=FAINT)
    return figure
