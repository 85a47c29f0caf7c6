"""Quality by steps, rho and guidance (Sections 3.4 and 4.2, Table 4), and the best of the grid.

The best sampler of a small model is its own; the paper's is 25 steps, rho 4, guidance 1.5 in an interval (E1).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import product

from torch import Tensor

from ..config import SamplerConfig
from ..errors import ConfigError
from ..flow import Guidance, shifted_grid
from ..tokenizer import FlowMo
from .painting import codes_of, paint
from .pixels import psnr

Interval = tuple[float, float]
Metric = Callable[[Tensor], float]
"""Reconstructions B 3 H W in [-1, 1] -> one number for all of them; lower is better."""


@dataclass(frozen=True)
class GridRow:
    """sampler: what was tried. passes: network passes an image takes. psnr: dB, mean over pictures, higher is better.
    metrics: the others by name, lower is better."""

    sampler: SamplerConfig
    passes: int
    psnr: float
    metrics: dict[str, float]

    def loss(self, criterion: str) -> float:
        """Lower is better, also for psnr."""
        return -self.psnr if criterion == "psnr" else self.metrics[criterion]


def candidates(
    steps: Sequence[int], rhos: Sequence[float], scales: Sequence[float], intervals: Sequence[Interval]
) -> list[SamplerConfig]:
    """Every combination, in this order of loops. Raises ConfigError for values that no sampler takes."""
    return [SamplerConfig(*values) for values in product(steps, rhos, scales, intervals)]


def effect(sampler: SamplerConfig) -> tuple[tuple[float, float], ...]:
    """(t, guidance scale) of each step: samplers of equal effect paint the same, such as one step with any rho, or any
    interval with a scale of 1."""
    guidance = Guidance(sampler.guidance_scale, sampler.guidance_interval)
    levels = shifted_grid(sampler.num_steps, sampler.rho)[:-1].tolist()
    return tuple((t, sampler.guidance_scale if guidance.acts(t) else 1.0) for t in levels)


def sampler_grid(
    model: FlowMo,
    images: Tensor,
    samplers: Sequence[SamplerConfig],
    seeds: Sequence[int],
    metrics: dict[str, Metric],
    done: Sequence[GridRow] = (),
    batch_size: int = 16,
) -> Iterator[GridRow]:
    """One row a sampler, in order; all paint the same images B 3 H W in [-1, 1] from the same seeds, one an image.

    What has the effect of an earlier row, of this call or of ``done``, is not painted again.
    """
    size = (images.shape[2], images.shape[3])
    codes = codes_of(model, images, batch_size)
    known = {effect(row.sampler): row for row in done}
    for sampler in samplers:
        key = effect(sampler)
        if key not in known:
            painted = paint(model, codes, size, seeds, sampler, batch_size=batch_size)
            passes = sum(1 if scale == 1.0 else 2 for _, scale in key)
            values = {name: metric(painted) for name, metric in metrics.items()}
            known[key] = GridRow(sampler, passes, float(psnr(painted, images).mean()), values)
        row = known[key]
        yield GridRow(sampler, row.passes, row.psnr, row.metrics)


def best(rows: Sequence[GridRow], criterion: str = "lpips", within: float | None = None) -> GridRow:
    """The row that is lowest in a metric, or highest in "psnr"; of equal ones that of fewer passes, then the first.

    within: only rows whose PSNR is at most so many dB below the highest. Metrics alone like grain that people do not;
    this keeps it out. Raises ConfigError for a criterion that was not measured.
    """
    if not rows or criterion not in ("psnr", *rows[0].metrics):
        raise ConfigError(f"nothing was measured by {criterion!r}")
    enough = -float("inf") if within is None else max(row.psnr for row in rows) - within
    return min((r for r in rows if r.psnr >= enough), key=lambda row: (row.loss(criterion), row.passes))
