"""Quality is plotted against rate, and rFID against bits per pixel beside the paper's rows (Figure 1)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from .plots import COLORS, INK, MARKERS, new_figure, styled

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

QUOTED = "#8a8a8a"
OURS = "#111111"
OUR_MARKERS, OUR_LINES = ("*", "P", "X", "d"), ("-", "--", ":", "-.")
MIDDLE = ("center", "center")


class RatePoint(NamedTuple):
    """One measured row."""

    curve: str  # points of one name are joined
    emphasis: bool  # whether it is drawn as ours
    file_bytes: float | None  # of a picture with its headers; None where it has none or was not brought to them
    payload_bytes: float | None  # of a picture without its headers; None likewise
    values: Mapping[str, float]  # by measure


class QuotedPoint(NamedTuple):
    """One published row."""

    name: str  # written beside the point
    bits_per_pixel: float  # its rate
    rfid: float  # as published
    emphasis: bool = False  # whether it is drawn as FlowMo's


def rate_figure(
    panels: Mapping[str, Sequence[RatePoint]],
    measure: str,
    label: str,
    pixels: int,
    title: str,
    note: str,
    ticks: Sequence[float],
    logarithmic: bool = False,
) -> Figure:
    """Return a figure of one measure against the rate, a panel for each way of counting bytes.

    The axis below has bytes a picture, logarithmic; that above has bits per pixel.
    Points without a number of bytes are left out.
    panels: "file" and "payload", or one of them.
    label: of the measure, with its unit and which way is better.
    pixels: of a picture.
    ticks: numbers of bytes to name.
    logarithmic: whether the measure's axis is so too.
    """
    titles = {"file": "whole files", "payload": "without headers"}
    figure = new_figure(4.7 * len(panels) + 1.6, 4.6, title, note)
    names = list(dict.fromkeys(point.curve for points in panels.values() for point in points))
    with styled():
        all_axes = figure.subplots(1, len(panels), squeeze=False, sharey=True)[0]
        for axes, (way, points) in zip(all_axes, panels.items(), strict=True):
            for i, name in enumerate(names):
                chosen = [p for p in points if p.curve == name and measure in p.values]
                xy = sorted((x, p.values[measure]) for p in chosen if (x := getattr(p, f"{way}_bytes")) is not None)
                emphasis = any(p.emphasis for points in panels.values() for p in points if p.curve == name)
                style = _style(i, emphasis)
                axes.plot(*([list(v) for v in zip(*xy, strict=True)] or [[], []]), label=name, **style)
            axes.set_title(titles[way], loc="center")
            axes.set_xlabel("bytes a picture")
            _bytes_axis(axes, ticks, pixels)
            if logarithmic:
                _plain_logarithm(axes, "y")
            axes.grid(True, which="major")
        all_axes[0].set_ylabel(label)
        handles, labels = all_axes[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside right center")
    return figure


def bar_figure(
    panels: Mapping[str, Sequence[RatePoint]],
    measure: str,
    label: str,
    title: str,
    note: str,
    logarithmic: bool = False,
) -> Figure:
    """Return bars of one measure at a single number of bytes, one a method, in a panel for each way of counting.

    The arguments are those of :func:`rate_figure`. Points without a number of bytes are left out.
    """
    titles = {"file": "whole files", "payload": "without headers"}
    names = list(dict.fromkeys(point.curve for points in panels.values() for point in points))
    figure = new_figure(4.7 * len(panels) + 1.6, 1.6 + 0.42 * len(names), title, note)
    with styled():
        all_axes = figure.subplots(1, len(panels), squeeze=False, sharey=True)[0]
        for axes, (way, points) in zip(all_axes, panels.items(), strict=True):
            for point in points:
                if measure in point.values and getattr(point, f"{way}_bytes") is not None:
                    place = names.index(point.curve)
                    bars = axes.barh(place, point.values[measure], 0.7, color=_style(place, point.emphasis)["color"])
                    axes.bar_label(bars, fmt="%.4g", padding=3, fontsize=8)
            axes.set_title(titles[way], loc="center")
            axes.set_xlabel(label)
            axes.margins(x=0.15)
            if logarithmic:
                _plain_logarithm(axes, "x")
        all_axes[0].set_yticks(range(len(names)), names)
        all_axes[0].invert_yaxis()
    return figure


def figure_one(
    points: Sequence[RatePoint], quoted: Sequence[QuotedPoint], pixels: int, title: str, note: str
) -> Figure:
    """Return a figure of rFID against bits per pixel, both logarithmic.

    Measured rows are filled and joined, published ones are hollow and named.
    points: their rate is that of the payload. Those without rFID or a rate are left out.
    quoted: rFID of as many images as the points', since rFID falls with their number; none where there are no such
    rows.
    """
    figure = new_figure(8.6, 5.6, title, note)
    with styled():
        axes = figure.subplots()
        for i, name in enumerate(dict.fromkeys(point.curve for point in points)):
            chosen = [p for p in points if p.curve == name and "rfid" in p.values and p.payload_bytes is not None]
            xy = sorted((8 * (p.payload_bytes or 0) / pixels, p.values["rfid"]) for p in chosen)
            if xy:
                axes.plot(*zip(*xy, strict=True), label=name, **_style(i, any(p.emphasis for p in chosen)))
        if quoted:
            axes.plot([], [], "o", mfc="none", mec=QUOTED, label="quoted from Table 1")
        for point in quoted:
            color = INK if point.emphasis else QUOTED
            axes.plot(point.bits_per_pixel, point.rfid, "*" if point.emphasis else "o", mfc="none", mec=color, ms=9)
        axes.margins(x=0.08, y=0.08)
        _plain_logarithm(axes, "x")
        _plain_logarithm(axes, "y")
        axes.set_xlabel("bits per pixel")
        axes.set_ylabel("rFID, lower is better")
        axes.grid(True, which="major")
        figure.legend(loc="outside right upper")
        figure.draw_without_rendering()  # places in pixels are known from here on
        _name_points(axes, quoted)
    return figure


def _style(index: int, emphasis: bool) -> dict:
    if emphasis:  # ours are all black, so their markers and lines tell them apart
        marker, line = OUR_MARKERS[index % len(OUR_MARKERS)], OUR_LINES[index % len(OUR_LINES)]
        return {"color": OURS, "marker": marker, "ls": line, "ms": 13 if marker == "*" else 8, "lw": 1.4, "zorder": 4}
    color, marker = COLORS[index % len(COLORS)], MARKERS[index % len(MARKERS)]
    return {"color": color, "marker": marker, "ms": 5, "lw": 1.4, "zorder": 3}


def _bytes_axis(axes: Axes, ticks: Sequence[float], pixels: int) -> None:
    """Set the axis to logarithmic bytes in plain numbers, and add bits per pixel above."""
    from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

    def to_bits(size: Any) -> Any:
        return size * 8 / pixels

    def to_bytes(bits: Any) -> Any:
        return bits * pixels / 8

    axes.set_xscale("log")
    above = axes.secondary_xaxis("top", functions=(to_bits, to_bytes))
    above.set_xlabel("bits per pixel", fontsize=8)
    ticks = _apart(sorted(ticks), 1.35)
    axes.xaxis.set_major_locator(FixedLocator(ticks))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:,.0f}"))
    above.xaxis.set_major_locator(FixedLocator([to_bits(tick) for tick in ticks]))
    above.xaxis.set_minor_locator(NullLocator())
    above.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:.2g}"))


def _plain_logarithm(axes: Axes, name: Literal["x", "y"]) -> None:
    """Set the axis of that name to be logarithmic, its numbers not as powers; a short one at even distances."""
    from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

    axes.set(**{f"{name}scale": "log"})
    axis = axes.xaxis if name == "x" else axes.yaxis
    low, high = sorted(axis.get_data_interval())
    if low > 0 and high < 4 * low:
        axis.set_major_locator(MaxNLocator(6))
        axis.set_minor_locator(NullLocator())
    else:
        axis.set_minor_locator(LogLocator(subs=(2, 3, 5)))
    for set_formatter in (axis.set_major_formatter, axis.set_minor_formatter):
        set_formatter(FuncFormatter(lambda value, _: f"{value:g}"))


def _apart(values: Sequence[float], ratio: float) -> list[float]:
    """Return those of rising values that are at least ``ratio`` times the last one returned."""
    kept: list[float] = []
    for value in values:
        if not kept or value >= ratio * kept[-1]:
            kept.append(value)
    return kept


def _name_points(axes: Axes, quoted: Sequence[QuotedPoint]) -> None:
    """Write names at the right of their points, or at another side where a point or a name is in the way.

    The other sides are the left, above and below, in this order.
    """
    from matplotlib.transforms import Bbox

    places = [axes.transData.transform((point.bits_per_pixel, point.rfid)) for point in quoted]
    taken = [Bbox.from_bounds(x - 7, y - 7, 14, 14) for x, y in places]
    for i, point in enumerate(quoted):
        for dx, dy, ha, va in ((9, 0, "left", "center"), (-9, 0, "right", "center"), (0, 9, *MIDDLE), (0, -9, *MIDDLE)):
            name = axes.annotate(
                point.name,
                (point.bits_per_pixel, point.rfid),
                xytext=(dx, dy),
                textcoords="offset points",
                ha=ha,
                va=va,
                fontsize=7,
                color=INK if point.emphasis else QUOTED,
            )
            box = name.get_window_extent()
            others = [other for j, other in enumerate(taken) if j != i]
            if not any(box.overlaps(other) for other in others) or dy < 0:
                taken.append(box)
                break
            name.remove()
