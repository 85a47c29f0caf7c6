"""``flowmo figure rate-distortion-perception``: sweeps the norm of x_1, the starting noise (Appendix C, Figure 9).

It does so for one or two models of different rates. Less noise gives a likelier, smoother picture: distortion falls,
and for a good model the distribution of the pictures moves away from that of the originals. 5,000 pictures by default,
as in the paper, or as many as there are; distances of distributions depend on their number: only equal counts compare.
"""

from __future__ import annotations

import argparse

from ...experiments.rate_distortion_perception import draw_tradeoff
from ...progress import Progress
from ..arguments import common
from ..arguments.fields import add_flag
from ..arguments.values import finite
from . import shared

MOST_MODELS = 6
SCALES = [0.0, 0.25, 0.5, 0.7, 0.8, 0.9, 1.0, 1.1]
PERCEPTION = (
    "axis of perception: rFID, beside it KID; or the same distances in the space of a small classifier, which is "
    "faster and comparable with nothing else"
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    shared.add_data_arguments(parser, count=5000)
    add_flag(parser, "--scales", _scale, "factors of the norm of x_1; 1 is ordinary sampling", SCALES, metavar="F")
    add_flag(parser, "--distortion", ("psnr", "mse"), "axis of distortion", "psnr")
    add_flag(parser, "--perception", ("rfid", "fd_efflite0"), PERCEPTION, "rfid")
    common.add_weights_arguments(parser, "inception", "classifier")
    common.add_output_arguments(parser)
    common.add_run_arguments(parser)
    common.add_sampling_arguments(parser, shared.SEED_HELP)
    common.add_models_arguments(parser, f"models of different rates, at most {MOST_MODELS}: {common.MODEL_HELP}")


def run(arguments: argparse.Namespace) -> int:
    a, run = arguments, shared.open_figure(arguments, MOST_MODELS)
    scales = sorted(set(a.scales))
    progress = Progress(len(run.models) * len(scales), "points")
    drawn = draw_tradeoff(run, scales, a.distortion, a.perception, progress.advance)
    progress.finish()
    return shared.finish(a, run, drawn)


def _scale(text: str) -> float:
    value = finite(text)
    if value < 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not a factor of at least 0")
    return value
