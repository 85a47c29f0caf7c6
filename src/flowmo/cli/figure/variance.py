"""``flowmo figure variance``: samples each picture from several seeds and maps how much every pixel changes (Figure 8).
What the code says stays; what it leaves open changes with the seed."""

from __future__ import annotations

import argparse

from ...data import to_image
from ...experiments.sampling import sampler_in_words
from ...experiments.variance import SeedVariance, seed_variance, variance_content
from ...viewing.paper_figures import VarianceRow, variance_figure
from .. import common
from ..fields import add_flag
from ..printing import Progress
from ..values import positive
from . import shared

SAMPLES_SHOWN = 3


def add_arguments(parser: argparse.ArgumentParser) -> None:
    shared.add_data_arguments(parser, count=32)
    add_flag(parser, "--seeds", positive, "samples of each picture, at least 2", 8, metavar="S")
    shared.add_show_argument(parser)
    common.add_output_arguments(parser)
    common.add_run_arguments(parser)
    common.add_sampling_arguments(parser, "first of the seeds")
    common.add_model_arguments(parser)


def run(arguments: argparse.Namespace) -> int:
    figure = shared.figure_run(arguments)
    sampler = figure.samplers()[0]
    seeds = range(arguments.seed, arguments.seed + arguments.seeds)
    progress = Progress(len(figure.images))
    found: list[SeedVariance] = []
    rows = []
    for one in seed_variance(figure.models[0], figure.images, seeds, sampler, arguments.batch_size):
        if len(found) < arguments.show:
            original = to_image(figure.images[len(found)])
            samples = [to_image(sample) for sample in one.samples[:SAMPLES_SHOWN]]
            rows.append(VarianceRow(original, samples, 127.5 * one.variance.sqrt().numpy()))
        found.append(one)
        progress.advance()
    progress.finish()
    content = variance_content(figure.pictures.names, found)
    deviation, share = content["mean"]["deviation_8bit"], content["mean"]["share_of_squared_error"]
    note = (
        f"{figure.labels[0]}, {sampler_in_words(sampler)}; seeds {seeds[0]} to {seeds[-1]}, the same for all pictures\n"
        f"{len(found)} pictures: mean standard deviation {deviation:.1f} of 255 levels; chance is {share:.0%} of the "
        "squared error"
    )
    plot = variance_figure(rows, f"Reconstructions from {len(seeds)} seeds", note)
    if not arguments.json:
        print(note)
    seed = f"all pictures from seeds {seeds[0]} to {seeds[-1]}"
    return figure.finish(content, plot, [sampler], "unrounded", seed)
