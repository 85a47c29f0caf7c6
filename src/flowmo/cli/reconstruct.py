"""``flowmo reconstruct``: codes images, decodes them again and says how close they came.

For each picture the results are NAME.png and NAME.side-by-side.png (the original as the model saw it, then the
reconstruction), and for the first pictures one contact-sheet.png; --out one.png writes that file alone. The thumbnail
columns show what a small RGB picture of the same bits reaches.
"""

from __future__ import annotations

import argparse
from functools import partial

from ..config import to_dict
from ..evaluation.reconstruction import scores_table
from ..files import folder_in_words
from ..perceptual import lpips_or_note
from ..pipelines.reconstruct import SHEET, ReconstructionFiles, reconstruct_files
from ..progress import Progress
from .arguments import common, models, rates
from .printing import print_json, print_table


def add_arguments(parser: argparse.ArgumentParser) -> None:
    common.add_image_arguments(parser)
    rates.add_rate_arguments(parser)
    common.add_output_arguments(parser, or_file=common.OR_PNG)
    common.add_weights_arguments(parser, "lpips")
    common.add_run_arguments(parser)
    common.add_sampling_arguments(parser)
    common.add_model_arguments(parser)


def run(arguments: argparse.Namespace) -> int:
    a = arguments
    files = ReconstructionFiles.of(a.images, a.out, a.force)
    model = models.load_model(a)
    models.tell_idle_guidance(a, model)
    size = models.own_size(a, model.config)
    progress = Progress(len(files.paths))
    lpips = lpips_or_note(a.lpips, model.device, progress.say, "LPIPS is n/a")
    bits, settings = partial(rates.bits_per_token, a, model.config), models.sampling(a)
    how = (model, size, a.fit, a.batch_size, lpips, bits)
    made = reconstruct_files(files, *how, progress.skip, progress.advance, **settings)
    if lpips is not None and made.rows and made.rows[0]["lpips"] is None:
        progress.say("note: LPIPS is n/a for pictures as small as these")
    code = progress.finish()
    if a.json:
        result = {
            "model": a.model,
            "image_size": list(size) if size else None,
            "fit": a.fit if size else "whole",
            "settings": to_dict(models.sampler_of(a, model)) | {"seed": a.seed},
            "pictures": made.rows,
            "mean": made.mean,
            "contact_sheet": str(made.sheet) if made.sheet else None,
            "bad": progress.bad,
        }
        print_json(result)
    elif made.rows:
        print_table(*scores_table(made.rows, made.mean))
        print("\nthumb.: an RGB thumbnail of the same bits, enlarged; a code is worth something where it is closer")
        several = f"NAME.png, NAME.side-by-side.png and {SHEET} are in {folder_in_words(a.out)}"
        print(several if files.sheet else f"the picture is {a.out}")
    return code
