"""Image files are coded and decoded again: their reconstructions, side by side with them, and a contact sheet."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

from ..data import Fit, find_images, leave_out_results, output_stems, relative_names
from ..errors import FlowMoError
from ..evaluation.reconstruction import Scores, mean_scores, reconstruct_images
from ..files import check_targets, single_image
from ..perceptual import LPIPS
from ..tokenizer import FlowMo
from ..viewing import contact_sheet, side_by_side, write_png

SUFFIXES = (".png", ".side-by-side.png")
SHEET = "contact-sheet.png"
MOST_ON_SHEET = 16


@dataclass(frozen=True)
class ReconstructionFiles:
    """Image files, and what is written of each."""

    paths: Sequence[Path]  # the images
    names: Sequence[Path]  # of the images, below what was named
    targets: Sequence[Sequence[Path]]  # of each image its reconstruction, and the side-by-side where there is one
    sheet: Path | None  # the first images with their reconstructions; None where one file is written

    @classmethod
    def of(cls, images: list[str], out: Path, force: bool) -> ReconstructionFiles:
        """Return the files for images, folders and patterns. Raises FlowMoError where nothing could be written.

        out: a folder, or for one image a .png file.
        """
        paths = leave_out_results(find_images(images), images, out)
        names = relative_names(images, paths)
        one_file = single_image(out, len(paths))
        stems = output_stems(names, SUFFIXES, [SHEET])
        targets = [[one_file]] if one_file else [[out / f"{stem}{suffix}" for suffix in SUFFIXES] for stem in stems]
        sheet = None if one_file else out / SHEET
        check_targets([*chain.from_iterable(targets), *([sheet] if sheet else [])], paths, force)
        return cls(paths, names, targets, sheet)


class WrittenReconstructions(NamedTuple):
    """What was written, and how close the reconstructions came."""

    rows: list[dict[str, Any]]  # of each image its files, its rate and its scores
    mean: dict[str, Any]  # of the scores
    sheet: Path | None  # the contact sheet, if it was written


def reconstruct_files(
    files: ReconstructionFiles,
    model: FlowMo,
    size: tuple[int, int] | None,
    fit: Fit,
    batch_size: int,
    lpips: LPIPS | None,
    bits: Callable[[tuple[int, int]], int | None],
    skip: Callable[[Path, FlowMoError], None],
    on_done: Callable[[], None],
    **settings: Any,
) -> WrittenReconstructions:
    """Write the reconstructions of image files, and return their scores.

    size: (height, width) in pixels that they get; None leaves each its own. bits: of (height, width), those kept of a
    token. skip: called with images that cannot be read. settings: of ``FlowMo.detokenize``.
    """
    rows: list[dict[str, Any]] = []
    scores: list[Scores] = []
    sheet: dict[str, list[Any]] = {"original": [], "thumbnail": [], "FlowMo": []}
    for one in reconstruct_images(model, files.paths, size, fit, batch_size, lpips, bits, skip, **settings):
        alone, *beside = files.targets[one.index]
        write_png(alone, one.reconstruction)
        for target in beside:
            write_png(target, side_by_side(one.image, one.reconstruction))
        if len(scores) < MOST_ON_SHEET:
            for images, image in zip(sheet.values(), (one.image, one.thumbnail, one.reconstruction), strict=True):
                images.append(image)
        scores.append(one.scores)
        row: dict[str, Any] = {"file": str(files.paths[one.index]), "name": files.names[one.index].as_posix()}
        row |= {"output": str(alone), "side_by_side": str(beside[0]) if beside else None}
        rows.append(row | one.rate | asdict(one.scores))
        on_done()
    written = files.sheet if rows else None
    if written:
        write_png(written, contact_sheet(sheet))
    return WrittenReconstructions(rows, mean_scores(scores), written)
