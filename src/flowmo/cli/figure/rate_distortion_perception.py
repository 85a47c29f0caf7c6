"""``flowmo figure rate-distortion-perception``: sweeps the norm of x_1, the starting noise, for one or two models of
different rates (Appendix C, Figure 9). Less noise gives a likelier, smoother picture: distortion falls, and for a good
model the distribution of the pictures moves away from that of the originals. 5,000 pictures by default, as in the
paper, or as many as there are; distances of distributions depend on their number: only equal counts compare."""

from __future__ import annotations

import argparse
from typing import Any

from ...experiments.rate_distortion_perception import norm_sweep, point_to_dict
from ...metrics.table import column
from ...viewing.paper_figures import Curve, tradeoff_figure
from .. import common
from ..fields import add_flag
from ..printing import Progress, print_table
from ..values import finite
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
    figure = shared.figure_run(arguments, MOST_MODELS)
    images, samplers = figure.images, figure.samplers()
    scales = sorted(set(arguments.scales))
    progress = Progress(len(figure.models) * len(scales), "points")
    perception = figure.measure(arguments.perception)
    rows: list[dict[str, Any]] = []
    curves = []
    for label, model, sampler in zip(figure.labels, figure.models, samplers, strict=True):
        points = []
        for point in norm_sweep(model, images, scales, figure.seeds, perception, sampler, arguments.batch_size):
            points.append(point)
            progress.advance()
        rate = f"{label}, {model.config.bits_per_pixel:.3f} bits/pixel"
        names = list(points[0].perception)
        distortion = [getattr(point, arguments.distortion) for point in points]
        perceptions = {column(name).label: [point.perception[name] for point in points] for name in names}
        curves.append(Curve(rate, scales, distortion, perceptions))
        rate_of = {"model": label, "bits_per_pixel": model.config.bits_per_pixel}
        rows += [rate_of | point_to_dict(point) for point in points]
    progress.finish()
    title = f"Rate, distortion, perception: {len(images):,} pictures"
    plot = tradeoff_figure(curves, column(arguments.distortion).label, title, figure.note())
    if not arguments.json:
        columns = ["psnr", "mse", *names]
        header = ["model", "norm of x_1", *(column(name).label for name in columns)]
        lines = [[r["model"], f"{r['noise_scale']:g}", *(f"{r[name]:.4g}" for name in columns)] for r in rows]
        print_table(header, lines)
    return figure.finish({"count": len(images), "points": rows}, plot, samplers)


def _scale(text: str) -> float:
    value = finite(text)
    if value < 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not a factor of at least 0")
    return value
