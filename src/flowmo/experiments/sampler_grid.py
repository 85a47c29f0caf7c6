"""A grid of solvers, steps, rhos and guidances is measured, and its best is chosen (Sections 3.4 and 4.2, Table 4).

The best sampler of a small model is its own; the paper's is 25 steps, rho 4, guidance 1.5 in an interval (E1).
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Any

from torch import Tensor

from ..config import SamplerConfig, to_dict
from ..errors import ConfigError
from ..evaluation.protocols import STANDARD
from ..evaluation.result_store import ResultStore
from ..flow import Solver, evaluations, function_evaluations
from ..metrics.pixels import psnr
from ..tokenizer import FlowMo
from .sampling import Measure, codes_of, sample_codes

Interval = tuple[float, float]


@dataclass(frozen=True)
class GridRow:
    """One sampler of the grid with its numbers."""

    sampler: SamplerConfig  # what was tried
    nfe: int  # network evaluations, see ``flow.function_evaluations``
    psnr: float  # dB, mean over pictures
    measures: dict[str, float]  # other numbers by name, lower is better
    seconds: float = 0.0  # to sample and measure; 0 where an earlier row did

    def loss(self, criterion: str) -> float:
        """Return the number of a criterion such that lower is better, also for "psnr"."""
        return -self.psnr if criterion == "psnr" else self.measures[criterion]


def guidances(scales: Sequence[float], intervals: Sequence[Interval]) -> list[tuple[float, Interval]]:
    """Return every (scale, interval); scale 1 comes once, since without guidance the interval does not matter."""
    pairs = [(scale, intervals[0] if scale == 1 else interval) for scale, interval in product(scales, intervals)]
    return list(dict.fromkeys(pairs))


def candidates(
    steps: Sequence[int],
    rhos: Sequence[float],
    guidance: Sequence[tuple[float, Interval]],
    solvers: Sequence[Solver] = ("euler",),
) -> list[SamplerConfig]:
    """Return every combination, the solver outermost, else in the order of the arguments.

    Raises ConfigError for values no sampler takes.
    """
    return [
        SamplerConfig(n, rho, scale, interval, solver)
        for solver, n, rho, (scale, interval) in product(solvers, steps, rhos, guidance)
    ]


def sampler_grid(
    model: FlowMo,
    images: Tensor,
    samplers: Sequence[SamplerConfig],
    seeds: Sequence[int],
    measures: Sequence[Measure],
    store: ResultStore | None = None,
    identity: Any = None,
    batch_size: int = 16,
) -> Iterator[GridRow]:
    """Yield one row a sampler, in order.

    All sample the same images B 3 H W in [-1, 1] from the same seeds, one an image. Numbers are of 8-bit pictures.
    A sampler with the effect of an earlier one is not run again, nor is one whose numbers ``store`` holds under the
    same ``identity``.
    identity: JSON data that says which weights, pictures, seeds and measures the numbers are of.
    """
    size = (images.shape[2], images.shape[3])
    codes = codes_of(model, images, batch_size)
    known: dict[Any, GridRow] = {}
    for sampler in samplers:
        steps = evaluations(sampler)
        if steps in known:
            yield replace(known[steps], sampler=sampler, seconds=0.0)
            continue
        numbers = store.get([identity, steps]) if store else None
        if numbers is None:
            started = time.perf_counter()
            samples = STANDARD.for_networks(sample_codes(model, codes, size, seeds, sampler, batch_size=batch_size))
            values = {name: value for measure in measures for name, value in measure(samples).items()}
            numbers = [float(psnr(samples, images).mean()), values, time.perf_counter() - started]
            if store:
                store.add([identity, steps], numbers)
        known[steps] = GridRow(sampler, function_evaluations(sampler), *numbers)
        yield known[steps]


def frontier(rows: Sequence[GridRow], criterion: str) -> list[GridRow]:
    """Return the rows that no row of as few or fewer passes beats in a measure, by rising passes."""
    found: list[GridRow] = []
    for row in sorted(rows, key=lambda row: (row.nfe, row.loss(criterion))):
        if not found or row.loss(criterion) < found[-1].loss(criterion):
            found.append(row)
    return found


def best(rows: Sequence[GridRow], criterion: str = "lpips", within: float | None = None) -> GridRow:
    """Return the row that is lowest in a measure, or highest in "psnr".

    Of equal ones that of fewer passes comes back, then the first.
    within: only rows whose PSNR is at most so many dB below the highest take part. Measures alone like grain that
    people do not; this keeps it out.
    Raises ConfigError for a criterion that was not measured.
    """
    if not rows or criterion not in ("psnr", *rows[0].measures):
        raise ConfigError(f"nothing was measured by {criterion!r}")
    enough = -float("inf") if within is None else max(row.psnr for row in rows) - within
    return min((r for r in rows if r.psnr >= enough), key=lambda row: (row.loss(criterion), row.nfe))


def row_to_dict(row: GridRow) -> dict[str, Any]:
    """Return a row as JSON data."""
    return {"sampler": to_dict(row.sampler), "passes": row.nfe, "psnr": row.psnr, **row.measures}
