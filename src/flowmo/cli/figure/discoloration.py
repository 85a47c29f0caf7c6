"""``flowmo figure discoloration``: how far the mean colour of each reconstruction is off, for one model or several,
such as one trained with thick-tailed noise levels and one without (Figure 7). The error is the absolute difference of
the mean colours, averaged over red, green and blue, in levels of 8 bits; also of the image estimate at each step."""

from __future__ import annotations

import argparse
import time

from ...data import to_image
from ...experiments.discoloration import discoloration
from ...experiments.sampling import sampler_in_words
from ...metrics.table import column
from ...viewing.paper_figures import Colors, discoloration_figure
from ...viewing.plots import write_plot
from .. import common
from . import shared

MOST_MODELS = 6


def add_arguments(parser: argparse.ArgumentParser) -> None:
    shared.add_data_arguments(parser, count=32)
    parser.add_argument(
        "--show", type=common.positive, default=8, metavar="N", help="pictures on the plot, the first (default: 8)"
    )
    common.add_output_arguments(parser)
    common.add_run_arguments(parser)
    common.add_sampling_arguments(parser, shared.SEED_HELP)
    shared.add_models_arguments(parser, MOST_MODELS, "models to compare")


def run(arguments: argparse.Namespace) -> int:
    started = time.perf_counter()
    plot = shared.targets(arguments)
    models = shared.load_models(arguments, MOST_MODELS)
    progress = common.Progress(len(models), "models")
    pictures = shared.load_pictures(arguments, models[0][1].config.image_size, progress)
    images, seeds = pictures.images, range(arguments.seed, arguments.seed + len(pictures.images))
    rows, drawn, samplers, used = [], [], [], []
    for label, model in models:
        sampler = common.sampler_of(arguments, model)
        found = discoloration(model, images, seeds, sampler, arguments.batch_size)
        along = [error.mean for error in found.along_steps]
        shown = [to_image(image) for image in found.images[: arguments.show]]
        drawn.append(Colors(label, shown, found.error.per_picture, found.levels, along))
        samplers.append(f"{label}: {sampler_in_words(sampler)}")
        rows.append(found.content(label, images, pictures.names))
        used.append((model, sampler))
        progress.advance()
    code = progress.finish()
    note = "\n".join(samplers) + f"\n{shared.count_in_words(arguments, pictures)}"
    originals = [to_image(image) for image in images[: arguments.show]]
    write_plot(plot, discoloration_figure(originals, drawn, "Discoloration of reconstructions", note))
    if not arguments.json:
        header = ["mean", "median", "95 %", "worst", "red", "green", "blue", column("psnr").label]
        common.print_table(["error of mean colour", *header], [_cells(row) for row in rows])
    shared.finish(arguments, pictures, progress, used, {"models": rows}, time.perf_counter() - started, "unrounded")
    return code


def _cells(row: dict) -> list[str]:
    error = row["mean_color_error"]
    numbers = [error[name] for name in ("mean", "median", "quantile_95", "worst")]
    return [
        row["model"],
        *(f"{x:.2f}" for x in numbers),
        *(f"{x:+.2f}" for x in error["cast_red_green_blue"]),
        f"{row['psnr']:.2f}",
    ]
