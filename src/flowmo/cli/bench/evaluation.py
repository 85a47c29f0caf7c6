"""``flowmo bench evaluate``: plans how long it takes to reconstruct and measure a data set on machines that are not at
hand, from the operations of the model's passes. Nothing is measured."""

from __future__ import annotations

import argparse
from dataclasses import replace
from typing import Any

from ...errors import ConfigError
from ...presets import PRESETS, preset
from ...profiling.evaluation import evaluation_plan
from ...provenance import code_version
from .. import common
from . import result


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--preset", default="flowmo-lo", help=f"one of {', '.join(PRESETS)} (default: flowmo-lo)")
    parser.add_argument("--images", type=common.positive, default=50_000, metavar="N", help="how many (default: 50000)")
    parser.add_argument(
        "--gpus", type=common.positive, nargs="+", default=[1, 8], metavar="N", help="GPUs (default: 1 8)"
    )
    parser.add_argument(
        "--tflops",
        type=common.finite,
        default=989.0,
        metavar="X",
        help="10^12 operations a second that one GPU is sold with (default: 989, an H100's in bf16)",
    )
    parser.add_argument(
        "--utilisation",
        type=common.finite,
        default=0.35,
        metavar="SHARE",
        help="share of them that is reached, which 'flowmo bench decode' measures (default: 0.35)",
    )
    parser.add_argument("--steps", type=common.steps, metavar="N", help="steps of the decoder (default: the preset's)")
    parser.add_argument("--guidance", type=common.finite, metavar="SCALE", help="guidance (default: the preset's)")
    common.add_solver_argument(parser)
    result.add_arguments(parser)


def run(arguments: argparse.Namespace) -> int:
    result.check_out(arguments)
    if not 0 < arguments.utilisation <= 1 or arguments.tflops <= 0:
        raise ConfigError("--tflops must be positive, and --utilisation above 0 and at most 1")
    config = preset(arguments.preset)
    asked = {"num_steps": arguments.steps, "guidance_scale": arguments.guidance, "solver": arguments.solver}
    sampler = replace(config.sampler, **{name: value for name, value in asked.items() if value is not None})
    plan = evaluation_plan(
        replace(config, sampler=sampler), arguments.images, arguments.tflops * 1e12, arguments.utilisation
    )
    seconds = {count: plan.seconds / count for count in arguments.gpus}
    rows = [{"gpus": count, "seconds": taken, "hour": taken < 3600} for count, taken in seconds.items()]
    content: dict[str, Any] = {"what": "evaluate", "preset": arguments.preset, "images": arguments.images}
    content |= plan._asdict() | {"rows": rows, "code": code_version()}
    if not arguments.json:
        print(
            f"{arguments.preset}, {arguments.images:,} images: {plan.flops_per_image / 1e12:,.4g} TFLOP each in the "
            f"encoder and {plan.passes} passes of the decoder, at {arguments.utilisation:.0%} of {arguments.tflops:g} "
            "TFLOP/s a GPU; Inception and LPIPS come on top\n"
        )
        table = [
            [str(n), f"{plan.seconds / n / 60:,.1f}", f"{arguments.utilisation * plan.seconds / n / 3600:.1%}"]
            for n in arguments.gpus
        ]
        common.print_table(["GPUs", "minutes", "utilisation for one hour"], table)
    return result.finish(arguments, content)
