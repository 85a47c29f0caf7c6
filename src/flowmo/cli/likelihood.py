"""``flowmo likelihood``: how likely a model finds pictures, by the reverse ODE from image to noise (Section 3.4): given
each picture's own code, the code of the next picture, or no code. Pictures are dequantized with uniform noise as wide
as an 8-bit level, and noised to the first level where that is higher; the divergence is estimated with random probes,
whose standard error is given. Writes MODEL-likelihood.json with every picture's numbers."""

from __future__ import annotations

import argparse
import time

from ..evaluation.results import (
    Result,
    describe_data,
    describe_model,
    short_name,
    write_result,
)
from ..experiments.likelihood import (
    CONDITIONS,
    LikelihoodSettings,
    default_start,
    likelihood_content,
    model_likelihood,
)
from ..flow.likelihood import DEQUANTIZATION_T
from ..provenance import machine
from ..tokenizer import SMALLEST_TRAINING_T
from . import common
from .fields import add_fields, fields_of
from .figure import shared

ODE = {
    "num_steps": ("--steps", "steps of the decoder"),
    "solver": ("--solver", "of the equation"),
    "rho": ("--rho", "where the steps lie: 1 evenly, more nearer the picture"),
    "probes": ("--probes", "of the divergence; exact takes the whole trace, for very small pictures"),
    "num_probes": ("--num-probes", "probes of every picture and step; two at least give a standard error"),
}
"""Flags of LikelihoodSettings."""
PROTOCOL = "reverse ODE, uniform dequantization, unguided"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", metavar="MODEL", help=common.MODEL_HELP)
    shared.add_data_arguments(parser, count=32)
    parser.add_argument(
        "--condition",
        nargs="+",
        choices=CONDITIONS,
        default=list(CONDITIONS),
        help="what the picture is likely given: its own code, that of the next picture, the null condition (default: "
        "all three)",
    )
    ode = parser.add_argument_group("the ODE")
    add_fields(ode, LikelihoodSettings(), ODE)
    ode.add_argument(
        "--start",
        type=common.finite,
        metavar="T",
        help="noise level that the integral begins at (default: the lowest that the model was trained at: "
        f"{DEQUANTIZATION_T:.4f}, that of dequantization, or {SMALLEST_TRAINING_T:g} of a model that predicts images)",
    )
    ode.add_argument(
        "--seed",
        type=common.seed,
        default=0,
        metavar="N",
        help="dequantization and probes: picture i has seed N + i (default: 0)",
    )
    common.add_output_arguments(parser)
    common.add_run_arguments(parser)
    common.add_model_arguments(parser, flag=False)


def run(arguments: argparse.Namespace) -> int:
    started = time.perf_counter()
    a = arguments
    target = a.out / f"{short_name(a.model).removesuffix('.safetensors').removesuffix('.pth')}-likelihood.json"
    common.check_targets([target], [], a.force)
    model = common.load_model(a)
    start = default_start(model) if a.start is None else a.start
    settings = LikelihoodSettings(**fields_of(a, LikelihoodSettings) | {"start": start})
    conditions = list(dict.fromkeys(a.condition))
    progress = common.Progress(a.count * len(conditions), "pictures")
    pictures = shared.load_pictures(a, model.config.image_size, progress)
    images, seeds = pictures.images, range(a.seed, a.seed + len(pictures.images))
    progress.expect(len(images) * len(conditions))
    found = model_likelihood(model, images, seeds, settings, conditions, a.batch_size, progress.advance)
    code = progress.finish()
    content = likelihood_content(settings, found, pictures.names, images[0].numel())
    skipped = [bad["reason"] for bad in progress.bad]
    data = describe_data(common.data_name(a.data), images, pictures.split, skipped)
    seed = f"dequantization and probes of picture i from seed {a.seed} + i"
    record, seconds = describe_model(model, a.model), time.perf_counter() - started
    result = Result(
        "likelihood", PROTOCOL, data, (record,), seed, content, seconds, a.command_line, machine=machine(model.device)
    )
    write_result(target, result)
    if a.json:
        print(target.read_text(), end="")
        return code
    _print(content)
    what = "8-bit pictures" if start <= DEQUANTIZATION_T else f"pictures with noise of level {start:g}"
    print(f"\n{len(images)} {what}; {target.name} is in {a.out}")
    return code


def _print(content: dict) -> None:
    rows = []
    for name, mean in content["means"].items():
        error = mean["probe_standard_error_nats"]
        rows.append(
            [
                name,
                f"{mean['nats_per_image']:,.0f}",
                "n/a" if error is None else f"{error:,.0f}",
                f"{mean['bits_per_dimension']:.3f}",
            ]
        )
    common.print_table(["given code", "nats/image", "error of probes", "bits/dimension"], rows)
    for name, difference in content["differences"].items():
        low, high = difference["interval"]
        print(
            f"{name}: {difference['nats_per_image']:+,.0f} nats an image (95 %: {low:+,.0f} to {high:+,.0f}); "
            f"{difference['share_of_images_likelier']:.0%} of the pictures are likelier"
        )
