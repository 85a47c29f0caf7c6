"""Figure 1: measured rows beside the paper's."""

from __future__ import annotations

import pytest

from flowmo.viewing.rates import QuotedPoint, RatePoint, bar_figure, figure_one, rate_figure


def test_figure_1_shows_ours_beside_the_quoted_rows() -> None:
    rows = [
        RatePoint("ours", True, 168, 144, {"rfid": 12.0}),
        RatePoint("webp", False, 200, 160, {"rfid": 40.0}),
        RatePoint("too large for it", False, None, None, {}),
    ]
    figure = figure_one(rows, [QuotedPoint("FlowMo-Lo", 0.0703, 0.95, True)], 64 * 64, "Figure 1", "a note")
    axes = figure.axes[0]
    drawn = {(round(float(x), 4), float(y)) for line in axes.lines for x, y in zip(*line.get_data(), strict=True)}
    assert {(0.2812, 12.0), (0.3125, 40.0), (0.0703, 0.95)} <= drawn
    names = [text.get_text() for text in (*axes.texts, *figure.legends[0].get_texts())]
    assert {"ours", "webp", "FlowMo-Lo"} <= set(names)


def test_figure_1_without_quoted_rows_does_not_name_them() -> None:
    rows = [RatePoint("ours", True, 168, 144, {"rfid": 412.0})]
    figure = figure_one(rows, [], 64 * 64, "Figure 1", "a note")
    assert len(figure.axes[0].lines) == 1
    assert "quoted from Table 1" not in [text.get_text() for text in figure.legends[0].get_texts()]


def test_one_number_of_bytes_is_drawn_as_bars() -> None:
    rows = [
        RatePoint("ours", True, 168, 144, {"psnr": 21.5}),
        RatePoint("webp", False, 140, 112, {"psnr": 20.25}),
        RatePoint("not brought to it", False, None, None, {}),
    ]
    figure = bar_figure({"file": rows, "payload": rows}, "psnr", "PSNR dB, higher is better", "Rate", "a note")
    for axes in figure.axes:
        assert [bar.get_width() for bar in axes.patches] == [21.5, 20.25]
    names = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert names == ["ours", "webp", "not brought to it"]


@pytest.mark.parametrize(("low", "high"), [(408.0, 473.0), (0.56, 412.0)])
def test_the_axes_of_figure_1_have_plain_numbers(low: float, high: float) -> None:
    rows = [RatePoint("ours", True, 168, 144, {"rfid": high}), RatePoint("webp", False, 150, 129, {"rfid": low})]
    figure = figure_one(rows, [], 64 * 64, "Figure 1", "a note")
    figure.draw_without_rendering()
    for axis in (figure.axes[0].xaxis, figure.axes[0].yaxis):
        low_end, high_end = sorted(axis.get_view_interval())
        ticks = [
            tick for tick in axis.get_major_ticks() + axis.get_minor_ticks() if low_end <= tick.get_loc() <= high_end
        ]
        words = [tick.label1.get_text() for tick in ticks]
        assert len(words) >= 2
        assert all(float(word) for word in words), words


def test_two_models_of_ours_are_told_apart() -> None:
    points = [RatePoint(name, True, 100.0, 80.0, {"psnr": 20.0}) for name in ("a", "b")]
    axes = rate_figure({"payload": points}, "psnr", "PSNR", 4096, "t", "n", [80]).axes[0]
    styles = {(line.get_color(), line.get_marker(), line.get_linestyle()) for line in axes.get_lines()}
    assert len(styles) == 2
    assert {color for color, _, _ in styles} == {"#111111"}
