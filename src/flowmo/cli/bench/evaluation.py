"""``flowmo bench evaluate``: plans how long it takes to reconstruct and measure a data set on other machines.

The machines need not be at hand: the plan follows from the operations of the model's passes, and nothing is measured.
"""

from __future__ import annotations

import argparse
from dataclasses import replace

from ...errors import ConfigError
from ...presets import PRESETS, preset
from ...profiling.evaluation import evaluation_plan
from ...profiling.tables import evaluation_table
from ..arguments.common import add_solver_argument
from ..arguments.fields import add_flag
from ..arguments.values import finite, positive, steps
from ..printing import print_table
from . import shared

TFLOPS = "10^12 operations a second that one GPU is sold with (default: 989, an H100's in bf16)"
UTILISATION = "share of them that is reached, which 'flowmo bench decode' measures"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_flag(parser, "--preset", str, f"one of {', '.join(PRESETS)}", "flowmo-lo")
    add_flag(parser, "--images", positive, "how many", 50_000)
    add_flag(parser, "--gpus", positive, "GPUs", [1, 8])
    parser.add_argument("--tflops", type=finite, default=989.0, metavar="X", help=TFLOPS)
    add_flag(parser, "--utilisation", finite, UTILISATION, 0.35, metavar="SHARE")
    add_flag(parser, "--steps", steps, "steps of the decoder (default: the preset's)")
    add_flag(parser, "--guidance", finite, "guidance (default: the preset's)", metavar="SCALE")
    add_solver_argument(parser)
    shared.add_arguments(parser)


def run(arguments: argparse.Namespace) -> int:
    a = arguments
    shared.check_out(a)
    if not 0 < a.utilisation <= 1 or a.tflops <= 0:
        raise ConfigError("--tflops must be positive, and --utilisation above 0 and at most 1")
    config = preset(a.preset)
    asked = {"num_steps": a.steps, "guidance_scale": a.guidance, "solver": a.solver}
    sampler = replace(config.sampler, **{name: value for name, value in asked.items() if value is not None})
    plan = evaluation_plan(replace(config, sampler=sampler), a.images, a.tflops * 1e12, a.utilisation)
    content = (
        {"what": "evaluate", "preset": a.preset, "images": a.images} | plan._asdict() | {"rows": plan.rows(a.gpus)}
    )
    if not a.json:
        print(
            f"{a.preset}, {a.images:,} images: {plan.flops_per_image / 1e12:,.4g} TFLOP each in the encoder and "
            f"{plan.passes} passes of the decoder, at {a.utilisation:.0%} of {a.tflops:g} TFLOP/s a GPU; Inception and "
            "LPIPS come on top\n"
        )
        print_table(*evaluation_table(content["rows"], a.utilisation))
    return shared.finish(a, content)
