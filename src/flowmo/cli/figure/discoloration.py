"""``flowmo figure discoloration``: measures how far the mean colour of each reconstruction is off (Figure 7).

It does so for one model or several, such as one trained with thick-tailed noise levels and one without. The error is
the absolute difference of the mean colours, averaged over red, green and blue, in levels of 8 bits; also of the image
estimate at each step.
"""

from __future__ import annotations

import argparse

from ...experiments.discoloration import draw_discoloration
from ...progress import Progress
from ..arguments import common
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
    run = shared.open_figure(arguments, MOST_MODELS)
    progress = Progress(len(run.models), "models")
    drawn = draw_discoloration(run, arguments.show, progress.advance)
    progress.finish()
    return shared.finish(arguments, run, drawn, protocol="unrounded")
