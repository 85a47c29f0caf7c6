"""``flowmo figure sampler-grid``: the same pictures, sampled from the same seeds with every combination of solver,
steps, rho and guidance (Sections 3.4 and 4.2, Appendix B), and the best of them. A small model's best sampler is its
own; --store writes it with the weights. A killed command goes on where it was."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import get_args

from ...errors import ConfigError
from ...evaluation.result_store import ResultStore
from ...evaluation.results import labels
from ...experiments.grid_plot import Grid, grid_plot
from ...experiments.measures import identity
from ...experiments.sampler_grid import GridRow, best, candidates, guidances, row_to_dict, sampler_grid
from ...experiments.sampling import sampler_in_words
from ...flow import Solver
from ...metrics.table import column
from ...viewing.plots import write_plot
from ...weights import store_sampler, weights_path
from ...weights.shards import INDEX
from .. import common
from . import shared

CRITERIA = ("lpips", "psnr", "rfid")
SOLVERS: tuple[Solver, ...] = get_args(Solver)
_TITLE = "Quality by solver, steps, rho and guidance"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    shared.add_data_arguments(parser, count=128)
    grid = parser.add_argument_group("grid")
    grid.add_argument("--steps", type=common.steps, nargs="+", default=[1, 2, 4, 8], metavar="N", help=_help("1 2 4 8"))
    grid.add_argument("--solver", choices=SOLVERS, nargs="+", default=list(SOLVERS), help=_help("both, euler and heun"))
    grid.add_argument("--rho", type=common.rho, nargs="+", default=[1.0, 2.0, 4.0], metavar="RHO", help=_help("1 2 4"))
    grid.add_argument(
        "--guidance",
        type=common.finite,
        nargs="+",
        default=[1.0, 1.25, 1.5, 2.0],
        metavar="SCALE",
        help=_help("1 1.25 1.5 2; 1 is none"),
    )
    grid.add_argument(
        "--interval",
        type=common.finite,
        nargs=2,
        action="append",
        metavar=("LOW", "HIGH"),
        help="noise levels from 0 to 1 in which guidance acts; may be given several times (default: the model's)",
    )
    choice = parser.add_argument_group("choice")
    choice.add_argument(
        "--criterion", choices=CRITERIA, default="lpips", help="what the best sampler is best in (default: lpips)"
    )
    choice.add_argument(
        "--within",
        type=common.finite,
        metavar="DB",
        help="only among samplers whose PSNR is at most so many dB below the highest; keeps out grain that LPIPS likes",
    )
    choice.add_argument(
        "--store", type=Path, metavar="FILE", help="a copy of the model's .safetensors with the best sampler stored"
    )
    common.add_weights_arguments(parser, "lpips", "inception")
    parser.add_argument("--seed", type=common.seed, default=0, metavar="N", help=f"{shared.SEED_HELP} (default: 0)")
    common.add_output_arguments(parser)
    common.add_run_arguments(parser)
    common.add_model_arguments(parser)


def run(arguments: argparse.Namespace) -> int:
    plot = shared.targets(arguments)
    weights = _check_store(arguments)
    model = common.load_model(arguments)
    intervals = [(low, high) for low, high in arguments.interval or [model.config.sampler.guidance_interval]]
    steps, rhos, scales = (sorted(set(x)) for x in (arguments.steps, arguments.rho, arguments.guidance))
    guided = guidances(scales, intervals)
    solvers = [solver for solver in SOLVERS if solver in arguments.solver]
    samplers = candidates(steps, rhos, guided, solvers)
    progress = common.Progress(len(samplers), "samplers")
    pictures = shared.load_pictures(arguments, model.config.image_size, progress)
    names = ["lpips", *{arguments.criterion} & {"rfid"}]
    measures = [shared.measure(arguments, pictures.images, name) for name in names]
    belongs = identity(pictures.images, arguments.seed, model, names)
    store = ResultStore(arguments.out / "sampler-grid.partial")
    if store.entries:
        progress.say("going on after samplers that were measured before")
    rows: list[GridRow] = []
    seeds = range(arguments.seed, arguments.seed + len(pictures.images))
    for row in sampler_grid(model, pictures.images, samplers, seeds, measures, store, belongs, arguments.batch_size):
        rows.append(row)
        progress.advance()
    code = progress.finish()

    chosen = best(rows, arguments.criterion, arguments.within)
    rule = _rule(arguments)
    verdict = f"best by {rule}: {sampler_in_words(chosen.sampler)}"
    note = (
        f"{labels([arguments.model])[0]}; {shared.count_in_words(arguments, pictures)}\n"
        f"framed: {verdict} ({chosen.passes} network pass{'es' * (chosen.passes > 1)} a picture)"
    )
    grid = Grid(solvers, steps, rhos, guided, rows)
    write_plot(plot, grid_plot(grid, chosen, _TITLE, note))
    content = {
        "solvers": solvers,
        "criterion": arguments.criterion,
        "within_db": arguments.within,
        "best": row_to_dict(chosen),
        "rows": [row_to_dict(row) for row in rows],
    }
    if weights is not None:
        store_sampler(weights, arguments.store, chosen.sampler)
        content["stored_in"] = arguments.store.name
    if not arguments.json:
        _print([row for row in rows if row.seconds], chosen)  # samplers that take the same steps once
        print(f"\n{verdict}")
        if weights is not None:
            print(f"stored in {arguments.store}")
    shared.finish(arguments, pictures, progress, [(model, None)], content, sum(row.seconds for row in rows))
    store.path.unlink()
    return code


def _check_store(arguments: argparse.Namespace) -> Path | None:
    """Before any work: the file that --store copies, or None without it. Raises ConfigError."""
    if arguments.store is None:
        return None
    source = weights_path(arguments.model)
    for path in (source, arguments.store):
        if path.suffix != ".safetensors" and not (path == source and path.name == INDEX):
            raise ConfigError(f"--store copies a model's .safetensors file to another one; {path} is none")
    common.check_targets([arguments.store], [source], arguments.force)
    return source


def _rule(arguments: argparse.Namespace) -> str:
    rule = column(arguments.criterion).label
    if arguments.within is None:
        return rule
    return f"{rule}, PSNR within {arguments.within:g} dB of the highest"


def _print(rows: list[GridRow], chosen: GridRow) -> None:
    names = list(rows[0].measures)
    header = [
        "",
        "solver",
        "steps",
        "rho",
        "guidance",
        "interval of t",
        "NFE",
        column("psnr").label,
        *(column(n).label for n in names),
    ]
    lines = []
    for row in rows:
        s = row.sampler
        low, high = s.guidance_interval
        guided = [f"{s.guidance_scale:g}", "-" if s.guidance_scale == 1 else f"{low:.3g} to {high:.3g}"]
        numbers = [f"{row.psnr:.2f}", *(f"{row.measures[name]:.4f}" for name in names)]
        mark = "best" if row is chosen else ""
        lines.append([mark, s.solver, str(s.num_steps), f"{s.rho:g}", *guided, str(row.passes), *numbers])
    common.print_table(header, lines)


def _help(default: str) -> str:
    return f"values to try (default: {default})"
