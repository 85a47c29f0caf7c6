"""``flowmo figure sampler-grid``: samples the same pictures with every combination of the sampler's settings.

The settings are solver, steps, rho and guidance (Sections 3.4 and 4.2, Appendix B); the seeds are the same, and the
best combinations are shown. A small model's best sampler is its own; --store writes it with the weights. A killed
command goes on where it was.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import get_args

from ...errors import ConfigError
from ...experiments.grid_plot import Grid, choose, draw_grid, measure_grid
from ...experiments.sampler_grid import guidances
from ...files import check_targets
from ...flow import Solver
from ...progress import Progress
from ...weights import store_sampler, weights_path
from ...weights.shards import INDEX
from ..arguments import common
from ..arguments.fields import add_flag
from ..arguments.values import finite, rho, seed, steps
from . import shared

CRITERIA = ("lpips", "psnr", "rfid")
SOLVERS: tuple[Solver, ...] = get_args(Solver)


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
    run = shared.open_figure(a, sampled=False)
    intervals = [(low, high) for low, high in a.interval or [run.models[0].config.sampler.guidance_interval]]
    numbers, rhos, scales = (sorted(set(x)) for x in (a.steps, a.rho, a.guidance))
    solvers = [solver for solver in SOLVERS if solver in a.solver]
    grid = Grid(solvers, numbers, rhos, guidances(scales, intervals))
    progress = Progress(len(grid.samplers), "samplers")
    kept = a.out / "sampler-grid.partial"
    grid = measure_grid(run, grid, a.criterion, kept, progress.say, progress.advance)
    progress.finish()
    chosen = choose(grid, a.criterion, a.within)
    drawn = draw_grid(run, grid, chosen)
    if weights is not None:
        store_sampler(weights, a.store, chosen.row.sampler)
        drawn.content["stored_in"] = a.store.name
        drawn = drawn._replace(words=f"{drawn.words}\nstored in {a.store}")
    code = shared.finish(a, run, drawn, seconds=sum(row.seconds for row in grid.rows))
    kept.unlink()
    return code


def _check_store(arguments: argparse.Namespace) -> Path | None:
    """Return, before any work, the file that --store copies, or None without it. Raises ConfigError."""
    if arguments.store is None:
        return None
    source = weights_path(arguments.model)
    for path in (source, arguments.store):
        if path.suffix != ".safetensors" and not (path == source and path.name == INDEX):
            raise ConfigError(f"--store copies the model's .safetensors file; {path} is not such a file")
    check_targets([arguments.store], [source], arguments.force)
    return source
