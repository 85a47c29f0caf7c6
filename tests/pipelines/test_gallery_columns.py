"""A gallery as a notebook makes it: a column for each model, thumbnail and codec, and what the page says of them."""

from __future__ import annotations

import torch

from flowmo.comparison.codecs import get_codec
from flowmo.comparison.coded import Search
from flowmo.data import Images
from flowmo.pipelines.gallery import Gallery
from flowmo.presets import tiny
from flowmo.tokenizer import FlowMo

IMAGES = Images(
    torch.randint(0, 256, (2, 3, 32, 32), generator=torch.Generator().manual_seed(0)).byte(), ["a", "b"], [0, 3]
)


def test_columns_and_notes_of_a_gallery() -> None:
    model = FlowMo(tiny()).eval()
    gallery = Gallery([("tiny", model)], [], (36, 48), Search((36, 48), ("payload",)), None, {"num_steps": 2}, seed=5)
    done = []
    columns = gallery.columns(IMAGES, lambda: done.append(1))
    panes = [pane for pane, _ in columns]
    assert [pane.kind for pane in panes] == ["original", "model", "thumbnail", "thumbnail"]
    assert [pane.name for pane in panes[2:]] == ["RGB thumbnail, 36 B", "RGB thumbnail, 48 B"]
    assert panes[1].about.startswith("2 steps, rho 4")
    assert len(done) == gallery.count(IMAGES) == 6
    assert all(cell is not None and cell.lpips is None for _, cells in columns for cell in cells)
    notes = " ".join(gallery.notes(panes))
    assert "tiny: 2 steps" in notes
    assert "LPIPS" not in notes


def test_codecs_are_chosen_by_lpips() -> None:
    codec = get_codec("jpeg")

    def difference(images: torch.Tensor, reference: torch.Tensor) -> torch.Tensor:
        return (images - reference).square().flatten(1).mean(1)

    gallery = Gallery([], [codec], (700,), Search((700,), ("payload",)), difference)
    columns = gallery.columns(IMAGES)
    assert [pane.name for pane, _ in columns] == ["Original", "RGB thumbnail", "JPEG"]
    assert columns[-1][1][0] is not None
    assert codec.about in gallery.notes([])[2]
    assert gallery.notes([])[-1].startswith("LPIPS is of AlexNet")
