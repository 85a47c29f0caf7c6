"""The grid of samplers is drawn as heat maps, and the best of each solver by what it costs (Table 4, Appendix B)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ..config import SamplerConfig
from ..flow import Solver
from ..metrics.table import column
from ..viewing.paper_figures import EvaluationCurve, Quantity, grid_figure
from .sampler_grid import GridRow, Interval, frontier
from .sampling import guidance_in_words

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Grid:
    """Every combination of solvers, steps, rhos and guidances, and a row for each."""

    solvers: Sequence[Solver]  # "euler", "heun"
    steps: Sequence[int]  # numbers of steps
    rhos: Sequence[float]  # of the shifted grid
    guidances: Sequence[tuple[float, Interval]]  # (scale, interval in t)
    rows: Sequence[GridRow]  # in the order of ``candidates``

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """Return the numbers of solvers, steps, rhos and guidances."""
        return len(self.solvers), len(self.steps), len(self.rhos), len(self.guidances)

    def maps(self, values: Sequence[float]) -> np.ndarray:
        """Return one number a row as maps (solver and guidance, rho, steps)."""
        maps = np.reshape(np.asarray(values), self.shape).transpose(0, 3, 2, 1)
        return maps.reshape(-1, *maps.shape[2:])


def grid_plot(grid: Grid, chosen: GridRow, title: str, note: str) -> Figure:
    """Return the figure of a grid, the chosen row framed."""
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
    return grid_figure(grid.steps, grid.rhos, words, quantities, place, title, note, curves)


def _curve(solver: Solver, rows: list[GridRow]) -> EvaluationCurve:
    """Return the best of a solver's samplers at each number of evaluations."""
    lower = {name: frontier(rows, name) for name in (*rows[0].measures, "psnr")}
    return EvaluationCurve(
        solver.title(),
        {
            column(name).label: [(row.passes, row.psnr if name == "psnr" else row.measures[name]) for row in best_rows]
            for name, best_rows in lower.items()
        },
    )
