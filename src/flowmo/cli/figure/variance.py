"""``flowmo figure variance``: samples each picture from several seeds and maps how much every pixel changes (Figure 8).
What the code says stays; what it leaves open changes with the seed."""

from __future__ import annotations

import argparse

from ...experiments.variance import draw_variance
from ...progress import Progress
from ..arguments import common
from ..arguments.fields import add_flag
from ..arguments.values import positive
from . import shared


def add_arguments(parser: argparse.ArgumentParser) -> None:
    shared.add_data_arguments(parser, count=32)
    add_flag(parser, "--seeds", positive, "samples of each picture, at least 2", 8, metavar="S")
    shared.add_show_argument(parser)
    common.add_output_arguments(parser)
    common.add_run_arguments(parser)
    common.add_sampling_arguments(parser, "first of the seeds")
    common.add_model_arguments(parser)


def run(arguments: argparse.Namespace) -> int:
    a, run = arguments, shared.open_figure(arguments)
    seeds = range(a.seed, a.seed + a.seeds)
    progress = Progress(len(run.images))
    drawn = draw_variance(run, seeds, a.show, progress.advance)
    progress.finish()
    seed = f"all pictures from seeds {seeds[0]} to {seeds[-1]}"
    return shared.finish(a, run, drawn, protocol="unrounded", seed=seed)
