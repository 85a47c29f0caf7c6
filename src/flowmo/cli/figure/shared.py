"""What all figures share: their flags, the run of models and images that the arguments say, and its end."""

from __future__ import annotations

import argparse
from functools import partial
from typing import Any

from ...experiments.figure_run import Drawn, FigureRequest, FigureRun
from ...metrics.networks import WeightFiles
from ...progress import Progress
from ..arguments import common, models
from ..arguments.fields import add_flag, fields_of
from ..arguments.values import positive, seed
from ..printing import print_table

SEED_HELP = "starting noise: picture i is sampled from seed N + i"


def add_data_arguments(parser: argparse.ArgumentParser, count: int) -> None:
    """Add the pictures to measure: DATA, --split, --count and --skip."""
    common.add_data_arguments(parser, count="--count", default=count, help="pictures to measure")
    what = "leave the first N pictures out, so that others choose than those that measure later"
    add_flag(parser, "--skip", seed, what, 0)


def add_show_argument(parser: argparse.ArgumentParser) -> None:
    """Add ``--show``, how many pictures the plot has."""
    add_flag(parser, "--show", positive, "pictures on the plot, the first", 8)


def open_run(arguments: argparse.Namespace, kind: str, name: str, **settings: Any) -> FigureRun:
    """Return a run of the models and images that the arguments say.

    settings: more of the fields of FigureRequest.
    """
    a, reading = arguments, Progress(arguments.count)
    files = {"lpips_alex": getattr(a, "lpips", None)} | fields_of(a, WeightFiles)
    made = {"kind": kind, "name": name, "files": WeightFiles(**files), "command": a.command_line}
    made |= {"models": a.models if "models" in a else [a.model], "sampler": None}
    request = FigureRequest(**fields_of(a, FigureRequest) | made | settings)
    run = FigureRun(request, partial(models.load_models, a), reading.skip)
    reading.expect(len(run.images) + reading.bad_count)
    reading.finish()
    return run


def open_figure(arguments: argparse.Namespace, most: int = 1, sampled: bool = True) -> FigureRun:
    """Return the run of the figure that the arguments name; sampled: with the sampler that they say."""
    sampler = models.sampler_given(arguments) if sampled else None
    name = arguments.figure
    return open_run(arguments, f"figure {name}", name, most=most, sampler=sampler)


def finish(arguments: argparse.Namespace, run: FigureRun, drawn: Drawn, **about: Any) -> int:
    """Write what was measured and print it, or the JSON with --json; return the exit code. about: of ``write``."""
    run.write(drawn, **about)
    if arguments.json:
        print(run.request.result.read_text(), end="")
    else:
        if drawn.table:
            print_table(*drawn.table)
        if drawn.words:
            print(f"\n{drawn.words}" if drawn.table else drawn.words)
        if run.request.plot is not None:
            print(f"\n{run.request.plot.name} and {run.request.result.name} are in {arguments.out}")
    return 1 if run.bad else 0
