"""The norm of x_1, the starting noise, trades distortion against perception at one rate (Appendix C, Figure 9; F3)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from ..config import SamplerConfig
from ..data import to_uint8
from ..evaluation.protocols import STANDARD
from ..metrics.pixels import psnr
from ..metrics.table import column
from ..tokenizer import FlowMo
from ..viewing.paper_figures import Curve, tradeoff_figure
from .figure_run import Drawn, FigureRun
from .sampling import Measure, codes_of, sample_codes


@dataclass(frozen=True)
class NormPoint:
    """The quality of samples at one norm of the starting noise."""

    noise_scale: float  # the factor of x_1
    psnr: float  # dB, mean over pictures
    mse: float  # mean over pictures, in squares of 8-bit levels
    perception: dict[str, float]  # distances of distributions by name, lower is closer


def norm_sweep(
    model: FlowMo,
    images: Tensor,
    noise_scales: Sequence[float],
    seeds: Sequence[int],
    perception: Measure,
    sampler: SamplerConfig | None = None,
    batch_size: int = 16,
) -> Iterator[NormPoint]:
    """Sample images B 3 H W in [-1, 1] once for each scale, always from the same seeds, one an image.

    A smaller norm makes x_1 likelier: samples move to the mean of p(x | c), so that their distortion falls. In the
    paper their distribution then moves away from that of the pictures; a small model whose noise becomes grain gains
    in both. All numbers are of 8-bit pictures.
    """
    size = (images.shape[2], images.shape[3])
    codes = codes_of(model, images, batch_size)
    for scale in noise_scales:
        samples = STANDARD.for_networks(sample_codes(model, codes, size, seeds, sampler, scale, batch_size))
        error = (to_uint8(samples).float() - to_uint8(images).float()).square().mean()
        yield NormPoint(scale, float(psnr(samples, images).mean()), float(error), perception(samples))


def point_to_dict(point: NormPoint) -> dict[str, float]:
    """Return a point as JSON data."""
    return {"noise_scale": point.noise_scale, "psnr": point.psnr, "mse": point.mse} | point.perception


def draw_tradeoff(
    run: FigureRun,
    noise_scales: Sequence[float],
    distortion: str = "psnr",
    perception: str = "rfid",
    on_done: Callable[[], None] = lambda: None,
) -> Drawn:
    """Return Figure 9 of the models of a run, a curve each.

    distortion: "psnr" or "mse", one axis. perception: as ``measures.load_measure`` has it, the other.
    on_done: called after each point.
    """
    measure = run.measure(perception)
    rows: list[dict[str, Any]] = []
    curves = []
    for label, model, sampler in zip(run.labels, run.models, run.samplers, strict=True):
        points = []
        batch_size = run.request.batch_size
        for point in norm_sweep(model, run.images, noise_scales, run.seeds, measure, sampler, batch_size):
            points.append(point)
            on_done()
        names = list(points[0].perception)
        values = [getattr(point, distortion) for point in points]
        perceptions = {column(name).label: [point.perception[name] for point in points] for name in names}
        rate = model.config.bits_per_pixel
        curves.append(Curve(f"{label}, {rate:.3f} bits/pixel", noise_scales, values, perceptions))
        rows += [{"model": label, "bits_per_pixel": rate} | point_to_dict(point) for point in points]
    title = f"Rate, distortion, perception: {len(run.images):,} pictures"
    plot = tradeoff_figure(curves, column(distortion).label, title, run.note())
    columns = ["psnr", "mse", *names]
    header = ["model", "norm of x_1", *(column(name).label for name in columns)]
    lines = [[r["model"], f"{r['noise_scale']:g}", *(f"{r[name]:.4g}" for name in columns)] for r in rows]
    return Drawn({"count": len(run.images), "points": rows}, plot, table=(header, lines))
