"""``flowmo bench train``: measures updates of Stage 1A on this machine, and the data loader alone.

It tells images a second, memory and utilisation; and, for models and numbers of GPUs that are not at hand, parameters,
operations an image and memory of each GPU by strategy. Nothing else should run meanwhile.
"""

from __future__ import annotations

import argparse
from typing import Any

from ... import samples
from ...data import open_split
from ...devices import usable_device
from ...presets import PRESETS
from ...profiling.tables import GIB, machine_in_words, measured_table, plan_table
from ...profiling.training import USUAL_PROCESSES, bench, estimate, settings_of
from ...progress import Progress
from ...training.configuration.recipes import RECIPES
from ..arguments import common
from ..arguments.fields import add_flag, add_settings
from ..arguments.values import positive
from ..printing import print_table
from . import shared

COMPILE = {"off": (False,), "on": (True,), "both": (False, True)}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    usual = " and ".join(map(str, USUAL_PROCESSES))
    parser.add_argument("data", nargs="?", metavar="DATA", help="as for flowmo train (default: the sample pictures)")
    add_flag(parser, "--preset", str, f"one of {', '.join(PRESETS)}", "flowmo-mini-64")
    parser.add_argument("--recipe", choices=sorted(RECIPES), help="settings to start from; --set changes them")
    add_settings(parser, "--set", "training settings to change")
    add_settings(parser, "--model", "model settings to change")
    parser.add_argument("--split", help="split of the data (default: train, where the data have several)")
    what = "images of one update, several to compare (default: those of the settings)"
    add_flag(parser, "--micro-batch", positive, what, nargs="+")
    parser.add_argument("--compile", choices=COMPILE, help="compiled blocks or not (default: as in the settings)")
    add_flag(parser, "--repeats", positive, "updates timed", 5)
    add_flag(parser, "--gpus", positive, f"numbers to estimate for (default: {usual})", nargs="+")
    what = "measure nothing: the numbers of any model at once"
    parser.add_argument("--estimate-only", action="store_true", help=what)
    shared.add_arguments(parser)
    common.add_device_argument(parser)


def run(arguments: argparse.Namespace) -> int:
    a = arguments
    shared.check_out(a)
    profiled = settings_of(a.preset, a.recipe, a.model, a.set)
    source = None
    if not a.estimate_only:
        source = open_split(a.data or str(samples.paths()[0].parent), a.split, "train")[0]
    planned, estimated = estimate(profiled, a.gpus)
    content: dict[str, Any] = {"what": "train", "preset": a.preset} | estimated
    if not a.json:
        flops = ", ".join(f"{name} {value / 1e9:,.4g}" for name, value in content["flops_per_image"].items())
        print(f"{a.preset}: {content['parameters'] / 1e6:,.1f} M parameters, GFLOP an image: {flops}")
        print("\nEstimate of the memory of each GPU, in GiB:")
        print_table(*plan_table(planned))
        for one in content["cannot_share"]:
            print(f"{one['processes']} GPUs were left out: {one['why']}")
    if source is None:
        return shared.finish(a, content)
    progress, compiled = Progress(0, "measurements"), COMPILE[a.compile] if a.compile else None
    callbacks = (progress.expect, progress.advance)
    found = bench(profiled, source, usable_device(a.device), a.micro_batch, compiled, a.repeats, *callbacks)
    progress.finish()
    if not a.json:
        print(
            f"\n{machine_in_words(found.machine)}, {profiled.train.chosen_precision} at {found.ceiling / 1e12:.3g} "
            f"TFLOP/s at most\ndata loader alone: {found.rate:.1f} images/s by {found.workers} processes, "
            f"{source.describe()}\n"
        )
        print_table(*measured_table(found.measured))
        for m in found.measured:
            if m.why:
                print(f"{m.micro_batch} images were not measured: they take {m.estimate / GIB:.2f} GiB, {m.why}")
    return shared.finish(a, content | found.content())
