"""The grid of samplers is drawn as heat maps, and the best of each solver by what it costs (Table 4, Appendix B)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from ..config import SamplerConfig
from ..evaluation.result_store import ResultStore
from ..flow import Solver
from ..metrics.table import column
from ..text import guidance_in_words, sampler_in_words
from ..viewing.paper_figures import EvaluationCurve, Quantity, grid_figure
from .figure_run import Drawn, FigureRun
from .measures import identity
from .sampler_grid import GridRow, Interval, best, candidates, frontier, row_to_dict, sampler_grid

if TYPE_CHECKING:
    from matplotlib.figure import Figure

TITLE = "Quality by solver, steps, rho and guidance"


@dataclass(frozen=True)
class Grid:
    """Every combination of solvers, steps, rhos and guidances, and a row for each that was measured."""

    solvers: Sequence[Solver]  # "euler", "heun"
    steps: Sequence[int]  # numbers of steps
    rhos: Sequence[float]  # of the shifted grid
    guidances: Sequence[tuple[float, Interval]]  # (scale, interval in t)
    rows: Sequence[GridRow] = ()  # in the order of ``samplers``

    @property
    def samplers(self) -> list[SamplerConfig]:
        """Return every combination. Raises ConfigError for values no sampler takes."""
        return candidates(self.steps, self.rhos, self.guidances, self.solvers)

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """Return the numbers of solvers, steps, rhos and guidances."""
        return len(self.solvers), len(self.steps), len(self.rhos), len(self.guidances)

    def maps(self, values: Sequence[float]) -> np.ndarray:
        """Return one number a row as maps (solver and guidance, rho, steps)."""
        maps = np.reshape(np.asarray(values), self.shape).transpose(0, 3, 2, 1)
        return maps.reshape(-1, *maps.shape[2:])


class Chosen(NamedTuple):
    """The best of a grid."""

    row: GridRow  # its sampler and numbers
    criterion: str  # what it is best in
    within: float | None  # see :func:`best`

    @property
    def words(self) -> str:
        """Return which it is, and by what rule."""
        rule = column(self.criterion).label
        if self.within is not None:
            rule = f"{rule}, PSNR within {self.within:g} dB of the highest"
        return f"best by {rule}: {sampler_in_words(self.row.sampler)}"


def measure_grid(
    run: FigureRun,
    grid: Grid,
    criterion: str,
    kept: Path,
    say: Callable[[str], None] = lambda line: None,
    on_done: Callable[[], None] = lambda: None,
) -> Grid:
    """Return the grid with its rows, measured by LPIPS and PSNR, and by rFID where it is the criterion.

    kept: file of rows as they are measured, so that a call that was killed goes on where it was.
    say: called where there are some. on_done: called after each row.
    """
    names = ["lpips", *{criterion} & {"rfid"}]
    measures = [run.measure(name) for name in names]
    model, images, batch_size = run.models[0], run.images, run.request.batch_size
    belongs = identity(images, run.request.seed, model, names)
    store = ResultStore(kept)
    if store.entries:
        say("going on after samplers that were measured before")
    rows = []
    for row in sampler_grid(model, images, grid.samplers, run.seeds, measures, store, belongs, batch_size):
        rows.append(row)
        on_done()
    return replace(grid, rows=rows)


def choose(grid: Grid, criterion: str, within: float | None = None) -> Chosen:
    """Return the best of the rows; the arguments are those of :func:`best`."""
    return Chosen(best(grid.rows, criterion, within), criterion, within)


def draw_grid(run: FigureRun, grid: Grid, chosen: Chosen) -> Drawn:
    """Return the figure of a grid that was measured, the chosen row framed, and the table of its rows.

    Samplers that take the same steps have one line in the table.
    """
    nfe = chosen.row.nfe
    note = (
        f"{run.labels[0]}; {run.count_in_words()}\nframed: {chosen.words} ({nfe} network pass{'es' * (nfe > 1)} "
        "a picture)"
    )
    content = {
        "solvers": list(grid.solvers),
        "criterion": chosen.criterion,
        "within_db": chosen.within,
        "best": row_to_dict(chosen.row),
        "rows": [row_to_dict(row) for row in grid.rows],
    }
    return Drawn(content, _plot(grid, chosen.row, note), chosen.words, _table(grid, chosen.row))


def _plot(grid: Grid, chosen: GridRow, note: str) -> Figure:
    rows = grid.rows
    o, n, r, g = (int(i) for i in np.unravel_index(rows.index(chosen), grid.shape))
    plain = [guidance_in_words(SamplerConfig(1, 1.0, *pair)) for pair in grid.guidances]
    several = len(grid.solvers) > 1
    words = [f"{solver.title()}, {text}" if several else text for solver in grid.solvers for text in plain]
    numbers = {name: [row.measures[name] for row in rows] for name in rows[0].measures}
    numbers["psnr"] = [row.psnr for row in rows]
    quantities = [Quantity(column(name).label, grid.maps(values), name == "psnr") for name, values in numbers.items()]
    curves = [_curve(solver, [row for row in rows if row.sampler.solver == solver]) for solver in grid.solvers]
    place = (o * len(grid.guidances) + g, r, n)
    return grid_figure(grid.steps, grid.rhos, words, quantities, place, TITLE, note, curves)


def _curve(solver: Solver, rows: list[GridRow]) -> EvaluationCurve:
    """Return the best of a solver's samplers at each number of evaluations."""
    lower = {name: frontier(rows, name) for name in (*rows[0].measures, "psnr")}
    return EvaluationCurve(
        solver.title(),
        {
            column(name).label: [(row.nfe, row.psnr if name == "psnr" else row.measures[name]) for row in best_rows]
            for name, best_rows in lower.items()
        },
    )


def _table(grid: Grid, chosen: GridRow) -> tuple[list[str], list[list[str]]]:
    names = list(grid.rows[0].measures)
    lines = []
    for row in grid.rows:
        if not row.seconds:
            continue
        s = row.sampler
        low, high = s.guidance_interval
        guided = [f"{s.guidance_scale:g}", "-" if s.guidance_scale == 1 else f"{low:.3g} to {high:.3g}"]
        numbers = [f"{row.psnr:.2f}", *(f"{row.measures[name]:.4f}" for name in names)]
        mark = "best" if row is chosen else ""
        lines.append([mark, s.solver, str(s.num_steps), f"{s.rho:g}", *guided, str(row.nfe), *numbers])
    measured = [column(name).label for name in ("psnr", *names)]
    return ["", "solver", "steps", "rho", "guidance", "interval of t", "NFE", *measured], lines
