"""``flowmo figure rate-distortion-perception``: sweeps the norm of x_1, the starting noise, for one or two models of
different rates (Appendix C, Figure 9). Less noise gives a likelier, smoother picture: distortion falls, and for a good
model the distribution of the pictures moves away from that of the originals. 5,000 pictures by default, as in the
paper, or as many as there are; distances of distributions depend on their number: only equal counts compare."""

from __future__ import annotations

import argparse
import time
from typing import Any

from ...experiments.rate_distortion_perception import norm_sweep, point_to_dict
from ...experiments.sampling import sampler_in_words
from ...metrics.table import column
from ...viewing.paper_figures import Curve, tradeoff_figure
from ...viewing.plots import write_plot
from .. import common
from . import shared

MOST_MODELS = 6
SCALES = [0.0, 0.25, 0.5, 0.7, 0.8, 0.9, 1.0, 1.1]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    shared.add_data_arguments(parser, count=5000)
    parser.add_argument(
        "--scales",
        type=_scale,
        nargs="+",
        default=SCALES,
        metavar="F",
        help=f"factors of the norm of x_1; 1 is ordinary sampling (default: {' '.join(f'{s:g}' for s in SCALES)})",
    )
    parser.add_argument(
        "--distortion", choices=("psnr", "mse"), default="psnr", help="axis of distortion (default: psnr)"
    )
    parser.add_argument(
        "--perception",
        choices=("rfid", "fd_efflite0"),
        default="rfid",
        help="axis of perception: rFID, beside it KID; or the same distances in the space of a small classifier, which "
        "is faster and comparable with nothing else (default: rfid)",
    )
    common.add_weights_arguments(parser, "inception", "classifier")
    common.add_output_arguments(parser)
    common.add_run_arguments(parser)
    common.add_sampling_arguments(parser, shared.SEED_HELP)
    shared.add_models_arguments(parser, MOST_MODELS, "models of different rates")


def run(arguments: argparse.Namespace) -> int:
    started = time.perf_counter()
    plot = shared.targets(arguments)
    models = shared.load_models(arguments, MOST_MODELS)
    scales = sorted(set(arguments.scales))
    progress = common.Progress(len(models) * len(scales), "points")
    pictures = shared.load_pictures(arguments, models[0][1].config.image_size, progress)
    images, seeds = pictures.images, range(arguments.seed, arguments.seed + len(pictures.images))
    perception = shared.measure(arguments, images, arguments.perception)
    rows: list[dict[str, Any]] = []
    curves, samplers, used = [], [], []
    for label, model in models:
        sampler = common.sampler_of(arguments, model)
        points = []
        for point in norm_sweep(model, images, scales, seeds, perception, sampler, arguments.batch_size):
            points.append(point)
            progress.advance()
        rate = f"{label}, {model.config.bits_per_pixel:.3f} bits/pixel"
        names = list(points[0].perception)
        distortion = [getattr(point, arguments.distortion) for point in points]
        perceptions = {column(name).label: [point.perception[name] for point in points] for name in names}
        curves.append(Curve(rate, scales, distortion, perceptions))
        samplers.append(f"{label}: {sampler_in_words(sampler)}")
        used.append((model, sampler))
        rate_of = {"model": label, "bits_per_pixel": model.config.bits_per_pixel}
        rows += [rate_of | point_to_dict(point) for point in points]
    code = progress.finish()
    note = "\n".join(samplers) + f"\n{shared.count_in_words(arguments, pictures)}"
    title = f"Rate, distortion, perception: {len(images):,} pictures"
    write_plot(plot, tradeoff_figure(curves, column(arguments.distortion).label, title, note))
    if not arguments.json:
        columns = ["psnr", "mse", *names]
        header = ["model", "norm of x_1", *(column(name).label for name in columns)]
        lines = [[r["model"], f"{r['noise_scale']:g}", *(f"{r[name]:.4g}" for name in columns)] for r in rows]
        common.print_table(header, lines)
    content = {"count": len(images), "points": rows}
    shared.finish(arguments, pictures, progress, used, content, time.perf_counter() - started)
    return code


def _scale(text: str) -> float:
    value = common.finite(text)
    if value < 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not a factor of at least 0")
    return value
