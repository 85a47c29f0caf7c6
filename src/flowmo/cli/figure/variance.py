"""``flowmo figure variance``: samples each picture from several seeds and maps how much every pixel changes (Figure 8).
What the code says stays; what it leaves open changes with the seed."""

from __future__ import annotations

import argparse
import time

from ...data import to_image
from ...evaluation.results import labels
from ...experiments.sampling import sampler_in_words
from ...experiments.variance import SeedVariance, seed_variance, variance_content
from ...viewing.paper_figures import VarianceRow, variance_figure
from ...viewing.plots import write_plot
from .. import common
from . import shared

SAMPLES_SHOWN = 3


def add_arguments(parser: argparse.ArgumentParser) -> None:
    shared.add_data_arguments(parser, count=32)
    parser.add_argument(
        "--seeds", type=common.positive, default=8, metavar="S", help="samples of each picture, at least 2 (default: 8)"
    )
    parser.add_argument(
        "--show", type=common.positive, default=8, metavar="N", help="pictures on the plot, the first (default: 8)"
    )
    common.add_output_arguments(parser)
    common.add_run_arguments(parser)
    common.add_sampling_arguments(parser, "first of the seeds")
    common.add_model_arguments(parser)


def run(arguments: argparse.Namespace) -> int:
    started = time.perf_counter()
    plot = shared.targets(arguments)
    model = common.load_model(arguments)
    sampler = common.sampler_of(arguments, model)
    progress = common.Progress(arguments.count)
    pictures = shared.load_pictures(arguments, model.config.image_size, progress)
    progress.expect(len(pictures.images) + progress.bad_count)
    seeds = range(arguments.seed, arguments.seed + arguments.seeds)
    found: list[SeedVariance] = []
    rows = []
    for one in seed_variance(model, pictures.images, seeds, sampler, arguments.batch_size):
        if len(found) < arguments.show:
            original = to_image(pictures.images[len(found)])
            samples = [to_image(sample) for sample in one.samples[:SAMPLES_SHOWN]]
            rows.append(VarianceRow(original, samples, 127.5 * one.variance.sqrt().numpy()))
        found.append(one)
        progress.advance()
    code = progress.finish()
    label = labels([arguments.model])[0]
    content = variance_content(pictures.names, found)
    deviation, share = content["mean"]["deviation_8bit"], content["mean"]["share_of_squared_error"]
    note = (
        f"{label}, {sampler_in_words(sampler)}; seeds {seeds[0]} to {seeds[-1]}, the same for all pictures\n"
        f"{len(found)} pictures: mean standard deviation {deviation:.1f} of 255 levels; chance is {share:.0%} of the "
        "squared error"
    )
    write_plot(plot, variance_figure(rows, f"Reconstructions from {len(seeds)} seeds", note))
    if not arguments.json:
        print(note)
    seconds = time.perf_counter() - started
    seed = f"all pictures from seeds {seeds[0]} to {seeds[-1]}"
    shared.finish(arguments, pictures, progress, [(model, sampler)], content, seconds, "unrounded", seed)
    return code
