"""``flowmo reconstruct``: codes images, decodes them again and says how close they came. For each picture the results
are NAME.png and NAME.side-by-side.png (the original as the model saw it, then the reconstruction), and for the first
pictures one contact-sheet.png. The thumbnail columns show what a small RGB picture of the same bits reaches."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from itertools import chain
from pathlib import Path
from typing import Any

from ..codec import patch_of
from ..data import find_pictures, output_stems, picture_batches, relative_names, to_image
from ..errors import WeightsError
from ..evaluation.reconstruction import Scores, mean_scores, reconstruct_and_score
from ..metrics.table import column
from ..perceptual import LPIPS, load_lpips
from ..viewing import contact_sheet, side_by_side, write_png
from . import common, rates
from .plain import plain

SUFFIXES = (".png", ".side-by-side.png")
SHEET = "contact-sheet.png"
MOST_ON_SHEET = 16


def add_arguments(parser: argparse.ArgumentParser) -> None:
    common.add_picture_arguments(parser)
    rates.add_rate_arguments(parser)
    common.add_output_arguments(parser)
    common.add_weights_arguments(parser, "lpips")
    common.add_run_arguments(parser)
    common.add_sampling_arguments(parser)
    common.add_model_arguments(parser)


def run(arguments: argparse.Namespace) -> int:
    out: Path = arguments.out
    paths = common.leave_out_results(find_pictures(arguments.pictures), arguments.pictures, out)
    names = relative_names(arguments.pictures, paths)
    targets = [[out / f"{s}{suffix}" for suffix in SUFFIXES] for s in output_stems(names, SUFFIXES, [SHEET])]
    common.check_targets([*chain.from_iterable(targets), out / SHEET], paths, arguments.force)
    model = common.load_model(arguments)
    if arguments.guidance is not None:
        common.tell_idle_guidance(common.sampler_of(arguments, model), "--guidance")
    size = common.own_size(arguments, model.config)
    progress = common.Progress(len(paths))
    lpips = _lpips(arguments, progress)

    rows: list[dict[str, Any]] = []
    scores: list[Scores] = []
    sheet: dict[str, list[Any]] = {"original": [], "thumbnail": [], "FlowMo": []}
    for batch in picture_batches(
        paths, size, arguments.fit, arguments.batch_size, progress.skip, multiple=patch_of(model.config)
    ):
        images = batch.images.to(model.device)
        bits = rates.bits_per_token(arguments, model.config, (images.shape[2], images.shape[3]))
        found = reconstruct_and_score(model, images, lpips, bits, **common.sampling(arguments))
        for i, (index, one) in enumerate(zip(batch.indices, found.scores, strict=True)):
            height, width = batch.original_sizes[i] if size is None else images.shape[2:]
            triple = [to_image(x[i, :, :height, :width]) for x in (images, found.thumbnails, found.images)]
            write_png(targets[index][0], triple[2])
            write_png(targets[index][1], side_by_side(triple[0], triple[2]))
            if len(scores) < MOST_ON_SHEET:
                for column, image in zip(sheet.values(), triple, strict=True):
                    column.append(image)
            scores.append(one)
            rows.append(
                {
                    "file": str(paths[index]),
                    "name": names[index].as_posix(),
                    "output": str(targets[index][0]),
                    "side_by_side": str(targets[index][1]),
                }
                | found.rate()
                | asdict(one)
            )
        progress.advance(len(batch.indices))
    if lpips is not None and rows and scores[0].lpips is None:
        progress.say("note: LPIPS is n/a for pictures as small as these")
    code = progress.finish()
    if rows:
        write_png(out / SHEET, contact_sheet(sheet))
    mean = mean_scores(scores)
    if arguments.json:
        result = {
            "model": arguments.model,
            "image_size": list(size) if size else None,
            "fit": arguments.fit if size else "whole",
            "settings": common.sampling_used(arguments, model.config),
            "pictures": rows,
            "mean": mean,
            "contact_sheet": str(out / SHEET) if rows else None,
            "bad": progress.bad,
        }
        common.print_json(result)
    elif rows:
        _print(rows, mean)
        print("\nthumb.: an RGB thumbnail of the same bits, enlarged; a code is worth something where it is closer")
        print(f"NAME.png, NAME.side-by-side.png and {SHEET} are in {out}")
    return code


def _lpips(arguments: argparse.Namespace, progress: common.Progress) -> LPIPS | None:
    try:
        return load_lpips("alex", arguments.lpips).to(arguments.device)
    except WeightsError as error:
        if arguments.lpips is not None:
            raise
        progress.say(f"note: LPIPS is n/a: {error} (--lpips FILE)")
        return None


def _print(rows: list[dict[str, Any]], mean: dict[str, float | None]) -> None:
    header = ["file", "bytes", "file bytes", "bits/pixel", column("psnr").label, "LPIPS", "thumb. PSNR", "thumb. LPIPS"]
    lines = [
        [
            _short(row["name"]),
            *_rate(row),
            *_numbers(row),
        ]
        for row in rows
    ]
    common.print_table(header, [*lines, [f"mean of {len(rows)}", "", "", "", *_numbers(mean)]])


def _rate(row: dict[str, Any]) -> list[str]:
    if row["payload_bytes"] is None:
        return ["n/a"] * 3
    return [str(row["payload_bytes"]), str(row["file_bytes"]), f"{row['bits_per_pixel']:.4f}"]


def _numbers(row: dict[str, Any]) -> list[str]:
    formats = {"psnr": ".2f", "lpips": ".3f", "thumbnail_psnr": ".2f", "thumbnail_lpips": ".3f"}
    return ["n/a" if row[key] is None else format(row[key], spec) for key, spec in formats.items()]


def _short(text: str, most: int = 48) -> str:
    text = plain(text)
    return text if len(text) <= most else "..." + text[3 - most :]
