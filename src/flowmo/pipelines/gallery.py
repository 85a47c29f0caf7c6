"""What a gallery shows: the originals, our models, thumbnails and codecs at the same bytes (as in Figures 4 and 10)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from .._version import __version__
from ..comparison.adapters import FlowMoPeer, ThumbnailPeer
from ..comparison.codecs import Codec, Distance
from ..comparison.coded import Search
from ..comparison.columns import IN_WORDS, Column, codec_columns, named, original_column, peer_column
from ..data import Images
from ..evaluation.protocols import STANDARD
from ..text import sampler_in_words
from ..tokenizer import FlowMo
from ..viewing.gallery import GalleryRow, Pane, write_gallery


@dataclass(frozen=True)
class Gallery:
    """What is beside the originals, and how it is made."""

    models: Sequence[tuple[str, FlowMo]]  # (name, model)
    codecs: Sequence[Codec]  # of which none is shown without LPIPS, which chooses their files
    targets: Sequence[int]  # bytes an image of thumbnails and codecs
    search: Search  # for the codecs' files
    lpips: Distance | None  # None where its weights are not there
    sampler: Mapping[str, Any] = field(default_factory=dict)  # settings that replace those stored with a model
    seed: int = 0  # of the first image
    batch_size: int = 16  # images at a time
    compared: Path | None = None  # folder of ``flowmo compare`` whose coded files are used again

    def count(self, images: Images) -> int:
        """Return how many reconstructions there are."""
        return len(images.images) * (len(self.models) + len(self.targets) + len(self.codecs))

    def columns(self, images: Images, advance: Callable[[], None] = lambda: None) -> list[Column]:
        """Return a pane and its cells for the originals, each model, each thumbnail and each codec.

        images: uint8. advance: called after each reconstruction.
        """
        pixels, how = images.images, (self.lpips, self.batch_size, advance)
        columns = [original_column(pixels)]
        seeds = [self.seed + place for place in images.places]
        for name, model in self.models:
            pane = Pane(name, "model", sampler_in_words(replace(model.config.sampler, **self.sampler)))
            columns.append(peer_column(pane, FlowMoPeer(name, model, dict(self.sampler)), pixels, seeds, *how))
        for target in self.targets:
            title = named("RGB thumbnail", target, self.targets)
            pane = Pane(title, "thumbnail", "18 bits a pixel, enlarged")
            columns.append(peer_column(pane, ThumbnailPeer(target), pixels, images.places, *how))
        if self.lpips is not None and self.codecs:
            asked = (self.targets, self.search, pixels, self.lpips, self.compared)
            columns += codec_columns(self.codecs, *asked, advance)
        return columns

    def write(
        self, path: Path, images: Images, title: str, advance: Callable[[], None] = lambda: None
    ) -> tuple[list[str], int]:
        """Write the page of images, uint8, and return the names of its panes and its bytes.

        advance: called after each reconstruction.
        """
        columns = self.columns(images, advance)
        panes = [pane for pane, _ in columns]
        rows = [GalleryRow(name, [cells[i] for _, cells in columns]) for i, name in enumerate(images.names)]
        size = (images.images.shape[2], images.images.shape[3])
        written = write_gallery(path, panes, rows, size, title, self.notes(panes))
        return [pane.name for pane in panes], written

    def notes(self, panes: Sequence[Pane]) -> list[str]:
        """Return what the numbers are, in sentences for the end of the page."""
        models = "; ".join(f"{pane.name}: {pane.about}" for pane in panes if pane.kind == "model")
        notes = [
            "The pictures are in this page without loss, so what is seen is what was measured, rounded to 8 bits.",
            f"Models: {models}; {STANDARD.noise_in_words(self.seed)}. Their bytes are the tokens'.",
        ]
        if self.codecs:
            settings = "; ".join(f"{IN_WORDS[codec.name]}: {codec.about}" for codec in self.codecs)
            notes.append(
                "Codecs: of the best files at several scales that stay within the bytes, counted without headers, the "
                f"one nearest to the original by LPIPS, enlarged again. {settings}."
            )
        notes.append(f"{'LPIPS is of AlexNet. ' * (self.lpips is not None)}Made with flowmo {__version__}.")
        return notes
