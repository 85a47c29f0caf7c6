"""``flowmo reconstruct``: codes images, decodes them again and says how close they came.

For each picture the results are NAME.png and NAME.side-by-side.png (the original as the model saw it, then the
reconstruction), and for the first pictures one contact-sheet.png; --out one.png writes that file alone. The thumbnail
columns show what a small RGB picture of the same bits reaches.
"""

from __future__ import annotations

import argparse
from dataclasses import asdict
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

from ..config import to_dict
from ..data import find_pictures, leave_out_results, output_stems, relative_names
from ..evaluation.reconstruction import Scores, mean_scores, reconstruct_pictures, scores_table
from ..files import check_targets, folder_in_words, single_image
from ..perceptual import lpips_or_note
from ..progress import Progress
from ..viewing import contact_sheet, side_by_side, write_png
from .arguments import common, models, rates
from .printing import print_json, print_table

SUFFIXES = (".png", ".side-by-side.png")
SHEET = "contact-sheet.png"
MOST_ON_SHEET = 16


def add_arguments(parser: argparse.ArgumentParser) -> None:
    common.add_picture_arguments(parser)
    rates.add_rate_arguments(parser)
    common.add_output_arguments(parser, or_file=common.OR_PNG)
    common.add_weights_arguments(parser, "lpips")
    common.add_run_arguments(parser)
    common.add_sampling_arguments(parser)
    common.add_model_arguments(parser)


def run(arguments: argparse.Namespace) -> int:
    a = arguments
    out: Path = a.out
    paths = leave_out_results(find_pictures(a.pictures), a.pictures, out)
    names = relative_names(a.pictures, paths)
    one_file = single_image(out, len(paths))
    stems = output_stems(names, SUFFIXES, [SHEET])
    targets = [[one_file]] if one_file else [[out / f"{stem}{suffix}" for suffix in SUFFIXES] for stem in stems]
    sheet_file = None if one_file else out / SHEET
    check_targets([*chain.from_iterable(targets), *([sheet_file] if sheet_file else [])], paths, a.force)
    model = models.load_model(a)
    models.tell_idle_guidance(a, model)
    size = models.own_size(a, model.config)
    progress = Progress(len(paths))
    lpips = lpips_or_note(a.lpips, model.device, progress.say, "LPIPS is n/a")

    rows: list[dict[str, Any]] = []
    scores: list[Scores] = []
    sheet: dict[str, list[Any]] = {"original": [], "thumbnail": [], "FlowMo": []}
    bits = partial(rates.bits_per_token, a, model.config)
    settings = models.sampling(a)
    for one in reconstruct_pictures(model, paths, size, a.fit, a.batch_size, lpips, bits, progress.skip, **settings):
        alone, *beside = targets[one.index]
        write_png(alone, one.reconstruction)
        for target in beside:
            write_png(target, side_by_side(one.image, one.reconstruction))
        if len(scores) < MOST_ON_SHEET:
            for images, image in zip(sheet.values(), (one.image, one.thumbnail, one.reconstruction), strict=True):
                images.append(image)
        scores.append(one.scores)
        row: dict[str, Any] = {"file": str(paths[one.index]), "name": names[one.index].as_posix()}
        row |= {"output": str(alone), "side_by_side": str(beside[0]) if beside else None}
        rows.append(row | one.rate | asdict(one.scores))
        progress.advance()
    if lpips is not None and rows and scores[0].lpips is None:
        progress.say("note: LPIPS is n/a for pictures as small as these")
    code = progress.finish()
    if rows and sheet_file:
        write_png(sheet_file, contact_sheet(sheet))
    mean = mean_scores(scores)
    if a.json:
        result = {
            "model": a.model,
            "image_size": list(size) if size else None,
            "fit": a.fit if size else "whole",
            "settings": to_dict(models.sampler_of(a, model)) | {"seed": a.seed},
            "pictures": rows,
            "mean": mean,
            "contact_sheet": str(sheet_file) if rows and sheet_file else None,
            "bad": progress.bad,
        }
        print_json(result)
    elif rows:
        print_table(*scores_table(rows, mean))
        print("\nthumb.: an RGB thumbnail of the same bits, enlarged; a code is worth something where it is closer")
        print(
            f"the picture is {out}"
            if one_file
            else f"NAME.png, NAME.side-by-side.png and {SHEET} are in {folder_in_words(out)}"
        )
    return code
