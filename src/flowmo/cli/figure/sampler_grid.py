"""``flowmo figure sampler-grid``: the same pictures, sampled from the same seeds with every combination of solver,
steps, rho and guidance (Sections 3.4 and 4.2, Appendix B), and the best of them. A small model's best sampler is its
own; --store writes it with the weights. A killed command goes on where it was."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import get_args

from ...errors import ConfigError
from ...evaluation.result_store import ResultStore
from ...experiments.grid_plot import Grid, grid_plot
from ...experiments.measures import identity
from ...experiments.sampler_grid import GridRow, best, candidates, guidances, row_to_dict, sampler_grid
from ...experiments.sampling import sampler_in_words
from ...files import check_targets
from ...flow import Solver
from ...metrics.table import column
from ...weights import store_sampler, weights_path
from ...weights.shards import INDEX
from .. import common
from ..fields import add_flag
from ..printing import Progress, print_table
from ..values import finite, rho, seed, steps
from . import shared

CRITERIA = ("lpips", "psnr", "rfid")
SOLVERS: tuple[Solver, ...] = get_args(Solver)
_TITLE = "Quality by solver, steps, rho and guidance"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    shared.add_data_arguments(parser, count=128)
    grid, what = parser.add_argument_group("grid"), "values to try"
    add_flag(grid, "--steps", steps, what, [1, 2, 4, 8])
    add_flag(grid, "--solver", SOLVERS, what, list(SOLVERS))
    add_flag(grid, "--rho", rho, what, [1.0, 2.0, 4.0])
    add_flag(grid, "--guidance", finite, f"{what}; 1 is none", [1.0, 1.25, 1.5, 2.0], metavar="SCALE")
    what = "noise levels from 0 to 1 in which guidance acts; may be given several times (default: the model's)"
    add_flag(grid, "--interval", finite, what, nargs=2, action="append", metavar=("LOW", "HIGH"))
    choice = parser.add_argument_group("choice")
    add_flag(choice, "--criterion", CRITERIA, "what the best sampler is best in", "lpips")
    what = "only among samplers whose PSNR is at most so many dB below the highest; keeps out grain that LPIPS likes"
    add_flag(choice, "--within", finite, what, metavar="DB")
    add_flag(choice, "--store", Path, "a copy of the model's .safetensors with the best sampler stored")
    common.add_weights_arguments(parser, "lpips", "inception")
    add_flag(parser, "--seed", seed, shared.SEED_HELP, 0)
    common.add_output_arguments(parser)
    common.add_run_arguments(parser)
    common.add_model_arguments(parser)


def run(arguments: argparse.Namespace) -> int:
    a = arguments
    weights = _check_store(a)
    figure = shared.figure_run(a)
    model, images = figure.models[0], figure.images
    intervals = [(low, high) for low, high in a.interval or [model.config.sampler.guidance_interval]]
    numbers, rhos, scales = (sorted(set(x)) for x in (a.steps, a.rho, a.guidance))
    guided = guidances(scales, intervals)
    solvers = [solver for solver in SOLVERS if solver in a.solver]
    samplers = candidates(numbers, rhos, guided, solvers)
    progress = Progress(len(samplers), "samplers")
    names = ["lpips", *{a.criterion} & {"rfid"}]
    measures = [figure.measure(name) for name in names]
    belongs = identity(images, a.seed, model, names)
    store = ResultStore(a.out / "sampler-grid.partial")
    if store.entries:
        progress.say("going on after samplers that were measured before")
    rows: list[GridRow] = []
    for row in sampler_grid(model, images, samplers, figure.seeds, measures, store, belongs, a.batch_size):
        rows.append(row)
        progress.advance()
    progress.finish()

    chosen = best(rows, a.criterion, a.within)
    rule = column(a.criterion).label
    if a.within is not None:
        rule = f"{rule}, PSNR within {a.within:g} dB of the highest"
    verdict = f"best by {rule}: {sampler_in_words(chosen.sampler)}"
    note = (
        f"{figure.labels[0]}; {figure.count_in_words()}\n"
        f"framed: {verdict} ({chosen.passes} network pass{'es' * (chosen.passes > 1)} a picture)"
    )
    plot = grid_plot(Grid(solvers, numbers, rhos, guided, rows), chosen, _TITLE, note)
    content = {
        "solvers": solvers,
        "criterion": a.criterion,
        "within_db": a.within,
        "best": row_to_dict(chosen),
        "rows": [row_to_dict(row) for row in rows],
    }
    if weights is not None:
        store_sampler(weights, a.store, chosen.sampler)
        content["stored_in"] = a.store.name
    if not a.json:
        _print([row for row in rows if row.seconds], chosen)  # samplers that take the same steps once
        print(f"\n{verdict}")
        if weights is not None:
            print(f"stored in {a.store}")
    code = figure.finish(content, plot, seconds=sum(row.seconds for row in rows))
    store.path.unlink()
    return code


def _check_store(arguments: argparse.Namespace) -> Path | None:
    """Return, before any work, the file that --store copies, or None without it. Raises ConfigError."""
    if arguments.store is None:
        return None
    source = weights_path(arguments.model)
    for path in (source, arguments.store):
        if path.suffix != ".safetensors" and not (path == source and path.name == INDEX):
            raise ConfigError(f"--store copies a model's .safetensors file to another one; {path} is none")
    check_targets([arguments.store], [source], arguments.force)
    return source


def _print(rows: list[GridRow], chosen: GridRow) -> None:
    names = list(rows[0].measures)
    measured = [column(name).label for name in ("psnr", *names)]
    lines = []
    for row in rows:
        s = row.sampler
        low, high = s.guidance_interval
        guided = [f"{s.guidance_scale:g}", "-" if s.guidance_scale == 1 else f"{low:.3g} to {high:.3g}"]
        numbers = [f"{row.psnr:.2f}", *(f"{row.measures[name]:.4f}" for name in names)]
        mark = "best" if row is chosen else ""
        lines.append([mark, s.solver, str(s.num_steps), f"{s.rho:g}", *guided, str(row.passes), *numbers])
    print_table(["", "solver", "steps", "rho", "guidance", "interval of t", "NFE", *measured], lines)
