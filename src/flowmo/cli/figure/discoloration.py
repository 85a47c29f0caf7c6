"""``flowmo figure discoloration``: how far the mean colour of each reconstruction is off, for one model or several,
such as one trained with thick-tailed noise levels and one without (Figure 7). The error is the absolute difference of
the mean colours, averaged over red, green and blue, in levels of 8 bits; also of the image estimate at each step."""

from __future__ import annotations

import argparse

from ...data import to_image
from ...experiments.discoloration import discoloration
from ...metrics.table import column
from ...viewing.paper_figures import Colors, discoloration_figure
from .. import common
from ..printing import Progress, print_table
from . import shared

MOST_MODELS = 6


def add_arguments(parser: argparse.ArgumentParser) -> None:
    shared.add_data_arguments(parser, count=32)
    shared.add_show_argument(parser)
    common.add_output_arguments(parser)
    common.add_run_arguments(parser)
    common.add_sampling_arguments(parser, shared.SEED_HELP)
    common.add_models_arguments(parser, f"models to compare, at most {MOST_MODELS}: {common.MODEL_HELP}")


def run(arguments: argparse.Namespace) -> int:
    figure = shared.figure_run(arguments, MOST_MODELS)
    images, samplers = figure.images, figure.samplers()
    progress = Progress(len(figure.models), "models")
    rows, drawn = [], []
    for label, model, sampler in zip(figure.labels, figure.models, samplers, strict=True):
        found = discoloration(model, images, figure.seeds, sampler, arguments.batch_size)
        along = [error.mean for error in found.along_steps]
        shown = [to_image(image) for image in found.images[: arguments.show]]
        drawn.append(Colors(label, shown, found.error.per_picture, found.levels, along))
        rows.append(found.content(label, images, figure.pictures.names))
        progress.advance()
    progress.finish()
    originals = [to_image(image) for image in images[: arguments.show]]
    plot = discoloration_figure(originals, drawn, "Discoloration of reconstructions", figure.note())
    if not arguments.json:
        header = ["mean", "median", "95 %", "worst", "red", "green", "blue", column("psnr").label]
        print_table(["error of mean colour", *header], [_cells(row) for row in rows])
    return figure.finish({"models": rows}, plot, samplers, "unrounded")


def _cells(row: dict) -> list[str]:
    error = row["mean_color_error"]
    numbers = [f"{error[name]:.2f}" for name in ("mean", "median", "quantile_95", "worst")]
    casts = [f"{cast:+.2f}" for cast in error["cast_red_green_blue"]]
    return [row["model"], *numbers, *casts, f"{row['psnr']:.2f}"]
