"""Figure 1: measured rows beside the paper's."""

from __future__ import annotations

from flowmo.viewing.rates import QuotedPoint, RatePoint, figure_one


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
