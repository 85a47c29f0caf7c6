"""Plots share one style and are written through matplotlib, which ``pip install 'flowmo[eval]'`` brings."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from ..errors import ConfigError
from ..files import replacing

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK, FAINT, PAPER = "#222222", "#d9d9d9", "#ffffff"
COLORS = ("#1f6fb4", "#d1495b", "#2a9d5c", "#8a5cb8", "#c77f1a", "#4c9aa8", "#7a7a7a")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
HEAT = "magma"
DPI = 150
STYLE: Any = {
    "figure.facecolor": PAPER,
    "axes.facecolor": PAPER,
    "savefig.facecolor": PAPER,
    "text.color": INK,
    "axes.edgecolor": "#888888",
    "axes.labelcolor": INK,
    "axes.titlelocation": "left",
    "axes.titlesize": 10,
    "axes.labelsize": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.formatter.useoffset": False,  # ticks say their values, not their distance from a number in a corner
    "xtick.color": INK,
    "ytick.color": INK,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "grid.color": FAINT,
    "grid.linewidth": 0.6,
    "legend.fontsize": 8,
    "legend.facecolor": PAPER,
    "legend.edgecolor": "none",
    "legend.framealpha": 0.9,
    "font.size": 9,
    "font.family": "DejaVu Sans",
}


def need_matplotlib() -> None:
    """Raise ConfigError, with the way out, where matplotlib is missing; it is called before the long work."""
    try:
        import matplotlib.figure  # noqa: F401
    except ImportError:
        raise ConfigError("plots need matplotlib: pip install 'flowmo[eval]'") from None


def new_figure(width: float, height: float, title: str, note: str) -> Figure:
    """Return an empty figure of this size in inches, without the global state of pyplot.

    title: above it.
    note: one or more lines below it that say which model, how many pictures, and which seeds the numbers are of.
    Raises ConfigError without matplotlib.
    """
    need_matplotlib()
    from matplotlib.figure import Figure

    with styled():
        figure = Figure(figsize=(width, height), layout="constrained")
        figure.suptitle(title, x=0.01, ha="left", fontsize=12, fontweight="bold")
        figure.supxlabel(note, x=0.01, ha="left", fontsize=7.5, color="#555555")
    return figure


def styled() -> Any:
    """Return the context in which axes are added to a figure: ``with styled(): figure.subplots(...)``."""
    import matplotlib

    return matplotlib.rc_context(STYLE)


def write_plot(path: Path, figure: Figure) -> None:
    """Write a figure as PNG, all of it or nothing, and make its folder. Raises OSError where that fails."""
    with replacing(path) as part, styled():
        figure.savefig(part, format="png", dpi=DPI)


def show_image(axes: Axes, image: Image.Image | np.ndarray, title: str = "", **settings: Any) -> Any:
    """Draw a picture, or a map H W in colours, every pixel a square, without ticks, below its title."""
    shown = axes.imshow(np.asarray(image), interpolation="nearest", **settings)
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_visible(False)
    if title:
        axes.set_title(title, loc="center", fontsize=9)
    return shown
