"""The plots of the paper's figures can be read: nothing is written over anything else."""

from __future__ import annotations

import numpy as np
import pytest

from flowmo.viewing.paper_figures import Curve, Quantity, grid_figure, tradeoff_figure


@pytest.mark.parametrize("steps", [[1, 2], [1, 2, 4, 8]])
def test_the_titles_of_a_grid_lie_apart(steps: list[int]) -> None:
    text = pytest.importorskip("matplotlib.text", reason="needs matplotlib: pip install 'flowmo[eval]'")
    guidances = [f"Euler, guidance {scale} for t in [0.1, 0.9]" for scale in (1.25, 1.5, 1.75, 2)]
    quantity = Quantity("PSNR dB", np.arange(4 * 3 * len(steps)).reshape(4, 3, len(steps)), True)
    figure = grid_figure(steps, [1, 2, 4], guidances, [quantity], (0, 0, 0), "title", "note")
    figure.canvas.draw()
    titles = figure.findobj(lambda found: isinstance(found, text.Text) and found.get_text().startswith("Euler"))
    boxes = [title.get_window_extent() for title in titles]
    assert len(boxes) == 4
    for i, box in enumerate(boxes):
        assert not any(box.overlaps(other) for other in boxes[i + 1 :])


def test_ticks_say_their_values_not_distances_from_one() -> None:
    pytest.importorskip("matplotlib", reason="needs matplotlib: pip install 'flowmo[eval]'")
    curve = Curve("a model", (0.0, 1.0), (25.00001, 25.00002), {"LPIPS": (0.300001, 0.300002)})
    figure = tradeoff_figure([curve], "PSNR dB", "title", "note")
    axes = figure.axes[0]
    for labels, value in ((axes.get_xticklabels(), 25.0), (axes.get_yticklabels(), 0.3)):
        assert [float(label.get_text()) for label in labels] == pytest.approx([value] * len(labels), abs=1e-4)
