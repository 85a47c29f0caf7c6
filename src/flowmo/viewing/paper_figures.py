"""Figures 7, 8 and 9 of the paper, and Table 4's sampler as heat maps, are drawn from plain data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from PIL import Image

from .plots import COLORS, HEAT, MARKERS, new_figure, show_image, styled

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.image import AxesImage


class VarianceRow(NamedTuple):
    """One picture of Figure 8."""

    original: Image.Image  # the picture itself
    samples: Sequence[Image.Image]  # its reconstructions from several seeds
    deviation: np.ndarray  # H W, root of the variance, in levels of 8 bits


class Curve(NamedTuple):
    """One model of Figure 9."""

    label: str  # of the model
    scales: Sequence[float]  # factors of the norm of x_1, one a point, which label the points
    distortion: Sequence[float]  # x of the points
    perception: Mapping[str, Sequence[float]]  # y of the points, by the name of a measure


class Quantity(NamedTuple):
    """One number of each sampler."""

    name: str  # for the heading
    values: np.ndarray  # (guidances, rhos, steps)
    higher_is_better: bool  # else lower is


class EvaluationCurve(NamedTuple):
    """One solver's best samplers."""

    label: str  # of the solver
    points: Mapping[str, Sequence[tuple[int, float]]]  # by name of a quantity, (NFE, value) by rising NFE


class Colors(NamedTuple):
    """One model of Figure 7."""

    label: str  # of the model
    images: Sequence[Image.Image]  # its reconstructions
    errors: Sequence[float]  # of the mean colours, in levels of 8 bits, one a picture
    levels: Sequence[float]  # the noise level of each step
    along_steps: Sequence[float]  # the mean error of the image estimate at each step, in levels of 8 bits


def variance_figure(rows: Sequence[VarianceRow], title: str, note: str) -> Figure:
    """Return a sheet of originals, samples and maps of the deviation, a line a picture.

    All maps have one scale, whose top is the 99.5th percentile.
    More than four pictures stand in two blocks beside each other.
    """
    blocks = 1 if len(rows) <= 4 else 2
    lines = -(-len(rows) // blocks)
    columns = len(rows[0].samples) + 2
    ratio = rows[0].original.height / rows[0].original.width
    figure = new_figure(1.25 * columns * blocks + 1.0, (1.25 * ratio) * lines + 1.4, title, note)
    top = max(1.0, float(np.percentile(np.stack([row.deviation for row in rows]), 99.5)))
    with styled():
        # Between the blocks stands an empty column.
        widths = ([1.0] * columns + [0.12]) * blocks
        grid = figure.subplots(lines, len(widths) - 1, squeeze=False, width_ratios=widths[:-1])
        for axes in grid.flat:
            axes.axis("off")
        for index, row in enumerate(rows):
            block, line = divmod(index, lines)
            axes = grid[line, block * (columns + 1) :][:columns]
            names = ["original", *(f"sample {i + 1}" for i in range(len(row.samples))), "deviation"]
            for ax, image, name in zip(axes, [row.original, *row.samples], names, strict=False):
                show_image(ax, image, name if line == 0 else "")
            heat = show_image(axes[-1], row.deviation, names[-1] if line == 0 else "", cmap=HEAT, vmin=0, vmax=top)
        bar = figure.colorbar(heat, ax=grid, shrink=0.8, aspect=30, pad=0.01, extend="max")
        bar.set_label("standard deviation over seeds (8-bit levels)")
    return figure


def tradeoff_figure(curves: Sequence[Curve], distortion: str, title: str, note: str) -> Figure:
    """Return a figure of perception against distortion, one panel a measure of perception, one curve a model."""
    names = list(curves[0].perception)
    figure = new_figure(5.2 * len(names) + 0.4, 4.9, title, note)
    with styled():
        for axes, name in zip(figure.subplots(1, len(names), squeeze=False)[0], names, strict=True):
            for i, curve in enumerate(curves):
                _draw_curve(axes, curve, name, COLORS[i % len(COLORS)], MARKERS[i % len(MARKERS)])
            axes.set_xlabel(distortion)
            axes.set_ylabel(f"{name}, lower is better")
            axes.grid(True)
            axes.margins(0.1)
            axes.legend(loc="best", title="number at a point: factor of the norm of $x_1$", title_fontsize=7.5)
    return figure


def _draw_curve(axes: Axes, curve: Curve, name: str, color: str, marker: str) -> None:
    x, y = curve.distortion, curve.perception[name]
    axes.plot(x, y, color=color, marker=marker, ms=5, lw=1.5, label=curve.label)
    for place, scale in zip(zip(x, y, strict=True), curve.scales, strict=True):
        weight = "bold" if scale == 1 else "normal"
        axes.annotate(
            f"{scale:g}", place, (4, 4), textcoords="offset points", fontsize=7, color=color, fontweight=weight
        )


def grid_figure(
    steps: Sequence[int],
    rhos: Sequence[float],
    guidances: Sequence[str],
    quantities: Sequence[Quantity],
    best: tuple[int, int, int],
    title: str,
    note: str,
    curves: Sequence[EvaluationCurve] = (),
) -> Figure:
    """Return heat maps over steps and rho, one a guidance, in a band for each quantity.

    The number stands in each cell. Each band has its own scale; lighter is better in all.
    best: (guidance, rho, steps) as indices; this cell is framed.
    curves: quality against function evaluations, drawn as a last band.
    """
    down = -(-len(guidances) // 4)
    across = -(-len(guidances) // down)
    wide, high = max(2.0, 0.62 * len(steps) + 0.6), max(1.2, 0.42 * len(rhos) + 0.75)
    figure = new_figure(
        max(6.5, across * wide + 1.1), len(quantities) * (down * high + 0.3) + 1.2 + 2.6 * bool(curves), title, note
    )
    with styled():
        heights = [down * high + 0.3] * len(quantities) + [2.6] * bool(curves)
        bands = figure.subfigures(len(heights), 1, squeeze=False, height_ratios=heights)[:, 0]
        if curves:
            panels = bands[-1].subplots(1, len(quantities), squeeze=False)[0]
            for axes, quantity in zip(panels, quantities, strict=True):
                _draw_evaluations(axes, curves, quantity.name)
        for band, quantity in zip(bands, quantities, strict=False):
            grid = band.subplots(down, across, squeeze=False)
            which = "higher" if quantity.higher_is_better else "lower"
            band.suptitle(f"{quantity.name}, {which} is better", x=0.01, ha="left", fontsize=10)
            low, top = float(np.min(quantity.values)), float(np.max(quantity.values))
            if low == top:
                low, top = low - 0.5, top + 0.5
            for axes in grid.flat[len(guidances) :]:
                axes.axis("off")
            for g, (axes, guidance) in enumerate(zip(grid.flat, guidances, strict=False)):
                heat = _draw_map(axes, quantity, g, low, top)
                narrow = len(steps) < 4  # a panel too narrow for the whole title
                axes.set_title(guidance.replace(" for ", "\nfor ") if narrow else guidance, fontsize=8)
                axes.set_xticks(range(len(steps)), [str(n) for n in steps])
                axes.set_yticks(range(len(rhos)), [f"{rho:g}" for rho in rhos])
                if g % across == 0:
                    axes.set_ylabel("rho")
                if g + across >= len(guidances):
                    axes.set_xlabel("steps")
                if g == best[0]:
                    _frame(axes, best[2], best[1])
            band.colorbar(heat, ax=grid, aspect=12 * down, pad=0.01)
    return figure


def _draw_map(axes: Axes, quantity: Quantity, g: int, low: float, top: float) -> AxesImage:
    colors = "viridis" if quantity.higher_is_better else "viridis_r"
    heat = axes.imshow(quantity.values[g], cmap=colors, vmin=low, vmax=top, aspect="auto")
    axes.tick_params(length=0)
    for (r, s), value in np.ndenumerate(quantity.values[g]):
        dark = ((value - low) / (top - low) < 0.5) == quantity.higher_is_better
        axes.text(s, r, _short(value), ha="center", va="center", fontsize=7, color="white" if dark else "black")
    return heat


def _draw_evaluations(axes: Axes, curves: Sequence[EvaluationCurve], name: str) -> None:
    for curve, color, marker in zip(curves, COLORS, MARKERS, strict=False):
        nfe, values = zip(*curve.points[name], strict=True)
        axes.plot(nfe, values, color=color, marker=marker, label=curve.label)
    axes.set_xlabel("NFE")
    axes.set_ylabel(name)
    axes.legend(fontsize=8)


def _frame(axes: Axes, column: int, row: int) -> None:
    from matplotlib.patches import Rectangle

    place = (column - 0.5, row - 0.5)
    axes.add_patch(Rectangle(place, 1, 1, fill=False, ec="#e02020", lw=2.2, clip_on=False, zorder=3))


def discoloration_figure(originals: Sequence[Image.Image], models: Sequence[Colors], title: str, note: str) -> Figure:
    """Return a strip of pictures, originals above each model's, and plots of the errors of their mean colours.

    The plots below the strip are the errors' distribution, and the error along the steps.
    """
    columns, ratio = len(originals), originals[0].height / originals[0].width
    strip = 1.15 * ratio * (1 + len(models)) + 0.2
    figure = new_figure(max(8.0, 1.15 * columns + 1.5), strip + 3.6, title, note)
    with styled():
        above, below = figure.subfigures(2, 1, height_ratios=[strip, 3.0], squeeze=False)[:, 0]
        grid = above.subplots(1 + len(models), columns, squeeze=False)
        rows = [("original", originals), *((m.label, m.images) for m in models)]
        for line, (label, images) in zip(grid, rows, strict=True):
            for axes, image in zip(line, images, strict=True):
                show_image(axes, image)
            line[0].set_ylabel(label, rotation=0, ha="right", va="center", labelpad=6)
        shares, steps = below.subplots(1, 2)
        for i, model in enumerate(models):
            color = COLORS[i % len(COLORS)]
            errors = np.sort(np.asarray(model.errors))
            mean = f"{model.label}: mean {errors.mean():.2f}"
            shares.step(errors, np.arange(1, len(errors) + 1) / len(errors), where="post", color=color, label=mean)
            marker = MARKERS[i % len(MARKERS)]
            steps.plot(model.levels, model.along_steps, color=color, marker=marker, ms=4, lw=1.5, label=model.label)
        shares.set_title("error of each picture's mean colour")
        shares.set_xlabel("8-bit levels, mean over red, green and blue")
        shares.set_ylabel("share of pictures below")
        shares.set_ylim(0, 1.02)
        shares.set_xlim(left=0)
        steps.set_title("the same of the image estimate at each step")
        steps.set_xlabel("noise level t, sampling goes to the right")
        steps.set_ylabel("mean error (8-bit levels)")
        steps.set_xlim(1.03, -0.03)
        steps.set_ylim(0, 1.25 * max(max(model.along_steps) for model in models) + 1e-6)
        for axes in (shares, steps):
            axes.grid(True)
            axes.legend(loc="best")
    return figure


def _short(value: float) -> str:
    """Return a number with three digits that count, such as 0.287, 19.4 and 103."""
    return f"{value:.3f}" if abs(value) < 10 else f"{value:.1f}" if abs(value) < 100 else f"{value:.0f}"
