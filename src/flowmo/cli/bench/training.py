"""``flowmo bench train``: updates of Stage 1A on this machine and the data loader alone, in images a second, memory and
utilisation; and parameters, operations an image and memory of each GPU by strategy, for models and numbers of GPUs that
are not at hand. Nothing else should run meanwhile."""

from __future__ import annotations

import argparse
from dataclasses import replace
from typing import Any

from ... import config as configs
from ... import samples
from ...config import FlowMoConfig
from ...data import ImageSource, open_split
from ...presets import PRESETS, at_size, preset
from ...profiling.flops import matrix_ceiling, precision
from ...profiling.training import USUAL_PROCESSES, Measured, Plan, cost, measured, plans
from ...profiling.training_speed import measure_loader
from ...provenance import code_version, machine
from ...training import TrainConfig
from ...training.recipes import RECIPES, model_of
from ...training.start import crop_size
from .. import common
from . import result

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
    parser.add_argument(
        "--micro-batch",
        type=common.positive,
        nargs="+",
        metavar="N",
        help="images of one update, several to compare (default: those of the settings)",
    )
    parser.add_argument("--compile", choices=COMPILE, help="compiled blocks or not (default: as in the settings)")
    parser.add_argument("--repeats", type=common.positive, default=5, metavar="N", help="updates timed (default: 5)")
    parser.add_argument(
        "--gpus", type=common.positive, nargs="+", metavar="N", help=f"numbers to estimate for (default: {usual})"
    )
    parser.add_argument(
        "--estimate-only", action="store_true", help="measure nothing: the numbers of any model at once"
    )
    result.add_arguments(parser)
    common.add_device_argument(parser)


def run(arguments: argparse.Namespace) -> int:
    result.check_out(arguments)
    model, train = _settings(arguments)
    source = None
    if not arguments.estimate_only:
        source = open_split(arguments.data or str(samples.paths()[0].parent), arguments.split, "train")[0]
    content: dict[str, Any] = {
        "what": "train",
        "preset": arguments.preset,
        "model": configs.to_dict(model),
        "train": configs.to_dict(train),
        **cost(model, train),
    }
    planned, refused = plans(model, train, arguments.gpus)
    content["estimate"] = [plan._asdict() | {"memory": plan.memory._asdict()} for plan in planned]
    content["cannot_share"] = [{"processes": count, "why": why} for count, why in refused.items()]
    if not arguments.json:
        _print_cost(arguments.preset, content)
        _print_plans(planned, refused)
    if source is not None:
        content |= _measure(arguments, model, train, source)
    return result.finish(arguments, content | {"code": code_version()})


def _measure(
    arguments: argparse.Namespace, model: FlowMoConfig, train: TrainConfig, source: ImageSource
) -> dict[str, Any]:
    device = common.find_device(arguments.device)
    facts, ceiling = machine(device), matrix_ceiling(device, precision(train))
    rate, pictures = measure_loader(source, train, model.image_size)
    if not arguments.json:
        print(f"\n{facts.get('gpu', facts['cpu'])}, {facts['threads']} threads, torch {facts['torch']}, ", end="")
        print(f"{train.precision} at {ceiling / 1e12:.3g} TFLOP/s at most")
        print(f"data loader alone: {rate:.1f} images/s by {train.workers} processes, {source.describe()}\n")
    compiled = COMPILE[arguments.compile] if arguments.compile else (train.compile,)
    sizes = arguments.micro_batch or [train.batch_size // train.micro_batches(1)]
    found = []
    progress = common.Progress(len(sizes) * len(compiled), "measurements")
    for size in sizes:
        for choice in compiled:
            asked = replace(train, compile=choice)
            found.append(measured(model, asked, device, pictures, size, arguments.repeats))
            progress.advance()
    progress.finish()
    if not arguments.json:
        _print_measured(found)
    return {
        "machine": facts,
        "ceiling_flops": ceiling,
        "loader": {"images_per_second": rate, "workers": train.workers},
        "repeats": arguments.repeats,
        "measured": [m._asdict() | {"speed": m.speed and m.speed._asdict()} for m in found],
    }


def _settings(arguments: argparse.Namespace) -> tuple[FlowMoConfig, TrainConfig]:
    train = RECIPES[arguments.recipe](arguments.preset) if arguments.recipe else TrainConfig()
    model = model_of(arguments.recipe, preset(arguments.preset))
    model, train = configs.override(model, arguments.model), configs.override(train, arguments.set)
    return at_size(model, crop_size(model, train)), replace(train, crop_size=None)  # what the network sees


def _print_cost(preset: str, content: dict[str, Any]) -> None:
    flops = content["flops_per_image"]
    print(f"{preset}: {content['parameters'] / 1e6:,.1f} M parameters, GFLOP an image: ", end="")
    print(", ".join(f"{name} {flops[name] / 1e9:,.4g}" for name in flops))


def _print_plans(planned: list[Plan], refused: dict[int, str]) -> None:
    print("\nEstimate of the memory of each GPU, in GiB:")
    rows = [
        [f"{p.processes} x {p.strategy if p.processes > 1 else 'alone'}", f"{p.micro_batches} x {p.micro_batch}"]
        + [f"{size / GIB:.2f}" for size in p.memory]
        for p in planned
    ]
    common.print_table(["GPUs", "images", *(planned[0].memory._fields if planned else ())], rows)
    for count, why in refused.items():
        print(f"{count} GPUs were left out: {why}")


def _print_measured(found: list[Measured]) -> None:
    header = ["images", "compiled", "images/s", "s/update", "GiB", "estimate", "process", "utilisation", "with d_perc"]
    rows = []
    for m in found:
        numbers = ["-"] * 3
        shares = ["-"] * 2
        if m.speed:
            numbers = [f"{m.speed.images_per_second:.2f}", f"{m.speed.seconds:.3f}", f"{m.speed.memory / GIB:.2f}"]
            shares = [f"{m.speed.utilisation:.1%}", f"{m.speed.utilisation_with_perceptual:.1%}"]
        memory = [f"{m.estimate / GIB:.2f}", "-" if m.process is None else f"{m.process / GIB:.2f}"]
        rows.append([str(m.micro_batch), "yes" if m.compile else "no", *numbers, *memory, *shares])
    common.print_table(header, rows)
    for m in found:
        if m.why:
            print(f"{m.micro_batch} images were not measured: they take {m.estimate / GIB:.2f} GiB, {m.why}")
