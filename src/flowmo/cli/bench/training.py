"""``flowmo bench train``: updates of Stage 1A on this machine and the data loader alone, in images a second, memory and
utilisation; and parameters, operations an image and memory of each GPU by strategy, for models and numbers of GPUs that
are not at hand. Nothing else should run meanwhile."""

from __future__ import annotations

import argparse
from dataclasses import replace
from typing import Any

from ... import samples
from ...config import FlowMoConfig, override, to_dict
from ...data import ImageSource, open_split
from ...devices import usable_device
from ...presets import PRESETS, at_size, preset
from ...profiling.flops import matrix_ceiling, precision
from ...profiling.training import USUAL_PROCESSES, Measured, Plan, cost, measured, plans
from ...profiling.training_speed import measure_loader
from ...provenance import machine
from ...training import TrainConfig
from ...training.recipes import RECIPES, model_of
from ...training.start import crop_size
from .. import common
from ..fields import add_flag
from ..printing import Progress, number, print_table
from ..values import positive
from . import shared

COMPILE = {"off": (False,), "on": (True,), "both": (False, True)}
GIB = 2**30


def add_arguments(parser: argparse.ArgumentParser) -> None:
    usual = " and ".join(map(str, USUAL_PROCESSES))
    parser.add_argument("data", nargs="?", metavar="DATA", help="as for flowmo train (default: the sample pictures)")
    parser.add_argument("--preset", default="flowmo-mini-64", help=f"one of {', '.join(PRESETS)}")
    parser.add_argument("--recipe", choices=sorted(RECIPES), help="settings to start from; --set changes them")
    parser.add_argument(
        "--set", nargs="+", action="extend", default=[], metavar="NAME=VALUE", help="training settings to change"
    )
    parser.add_argument(
        "--model", nargs="+", action="extend", default=[], metavar="NAME=VALUE", help="model settings to change"
    )
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
    model, train = _settings(a)
    source = None
    if not a.estimate_only:
        source = open_split(a.data or str(samples.paths()[0].parent), a.split, "train")[0]
    content: dict[str, Any] = {"what": "train", "preset": a.preset}
    content |= {"model": to_dict(model), "train": to_dict(train)} | cost(model, train)
    planned, refused = plans(model, train, a.gpus)
    content["estimate"] = [plan._asdict() | {"memory": plan.memory._asdict()} for plan in planned]
    content["cannot_share"] = [{"processes": count, "why": why} for count, why in refused.items()]
    if not a.json:
        _print_cost(a.preset, content)
        _print_plans(planned, refused)
    if source is not None:
        content |= _measure(a, model, train, source)
    return shared.finish(a, content)


def _measure(
    arguments: argparse.Namespace, model: FlowMoConfig, train: TrainConfig, source: ImageSource
) -> dict[str, Any]:
    a, device = arguments, usable_device(arguments.device)
    facts, ceiling = machine(device), matrix_ceiling(device, precision(train))
    rate, pictures = measure_loader(source, train, model.image_size)
    if not a.json:
        print(
            f"\n{facts.get('gpu', facts['cpu'])}, {facts['threads']} threads, torch {facts['torch']}, "
            f"{train.precision} at {ceiling / 1e12:.3g} TFLOP/s at most\n"
            f"data loader alone: {rate:.1f} images/s by {train.workers} processes, {source.describe()}\n"
        )
    compiled = COMPILE[a.compile] if a.compile else (train.compile,)
    sizes = a.micro_batch or [train.batch_size // train.micro_batches(1)]
    ways = [(size, replace(train, compile=choice)) for size in sizes for choice in compiled]
    progress = Progress(len(ways), "measurements")
    found = []
    for size, asked in ways:
        found.append(measured(model, asked, device, pictures, size, a.repeats))
        progress.advance()
    progress.finish()
    if not a.json:
        _print_measured(found)
    return {
        "machine": facts,
        "ceiling_flops": ceiling,
        "loader": {"images_per_second": rate, "workers": train.workers},
        "repeats": a.repeats,
        "measured": [m._asdict() | {"speed": m.speed and m.speed._asdict()} for m in found],
    }


def _settings(arguments: argparse.Namespace) -> tuple[FlowMoConfig, TrainConfig]:
    train = RECIPES[arguments.recipe](arguments.preset) if arguments.recipe else TrainConfig()
    model = model_of(arguments.recipe, preset(arguments.preset))
    model, train = override(model, arguments.model), override(train, arguments.set)
    return at_size(model, crop_size(model, train)), replace(train, crop_size=None)  # what the network sees


def _print_cost(preset: str, content: dict[str, Any]) -> None:
    flops = content["flops_per_image"]
    print(f"{preset}: {content['parameters'] / 1e6:,.1f} M parameters, GFLOP an image: ", end="")
    print(", ".join(f"{name} {flops[name] / 1e9:,.4g}" for name in flops))


def _print_plans(planned: list[Plan], refused: dict[int, str]) -> None:
    print("\nEstimate of the memory of each GPU, in GiB:")
    rows = []
    for p in planned:
        gpus = f"{p.processes} x {p.strategy if p.processes > 1 else 'alone'}"
        rows.append([gpus, f"{p.micro_batches} x {p.micro_batch}", *(f"{size / GIB:.2f}" for size in p.memory)])
    print_table(["GPUs", "images", *(planned[0].memory._fields if planned else ())], rows)
    for count, why in refused.items():
        print(f"{count} GPUs were left out: {why}")


def _print_measured(found: list[Measured]) -> None:
    header = ["images", "compiled", "images/s", "s/update", "GiB", "estimate", "process", "utilisation", "with d_perc"]
    rows = []
    for m in found:
        numbers, shares = ["-"] * 3, ["-"] * 2
        if m.speed:
            numbers = [f"{m.speed.images_per_second:.2f}", f"{m.speed.seconds:.3f}", f"{m.speed.memory / GIB:.2f}"]
            shares = [f"{m.speed.utilisation:.1%}", f"{m.speed.utilisation_with_perceptual:.1%}"]
        memory = [f"{m.estimate / GIB:.2f}", number(m.process and m.process / GIB, ".2f")]
        rows.append([str(m.micro_batch), "yes" if m.compile else "no", *numbers, *memory, *shares])
    print_table(header, rows)
    for m in found:
        if m.why:
            print(f"{m.micro_batch} images were not measured: they take {m.estimate / GIB:.2f} GiB, {m.why}")
