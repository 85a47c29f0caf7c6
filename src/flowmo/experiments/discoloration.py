"""Discoloured reconstructions show what a model makes of each picture's mean colour (Section 4.2, Figure 7).

A network that was never trained at t = 1 is wrong about the first velocity of every sample; the error is the same all
over a picture, and no later step takes it back.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..arch.condition import Condition
from ..config import SamplerConfig
from ..data import to_image
from ..flow import Guidance, image_estimate, seeded_noise, shifted_grid, solve
from ..metrics.pixels import psnr
from ..metrics.table import column
from ..tokenizer import FlowMo
from ..viewing.paper_figures import Colors, discoloration_figure
from .figure_run import Drawn, FigureRun
from .sampling import codes_of


@dataclass(frozen=True)
class ColorError:
    """How far mean colours are off, in levels of 8 bits."""

    # The absolute error of each picture's mean colour, mean over red, green and blue, in order.
    per_image: list[float]
    # The signed error of red, green and blue, mean over pictures.
    cast: tuple[float, float, float]

    @property
    def mean(self) -> float:
        """Return the mean error over pictures."""
        return sum(self.per_image) / len(self.per_image)

    def quantile(self, share: float) -> float:
        """Return the error that this share of the pictures, 0 to 1, does not exceed."""
        return float(torch.tensor(self.per_image, dtype=torch.float64).quantile(share))

    def content(self) -> dict[str, Any]:
        """Return the numbers of all pictures together, as JSON data."""
        quantiles = {"median": self.quantile(0.5), "quantile_95": self.quantile(0.95), "worst": self.quantile(1.0)}
        return {"mean": self.mean} | quantiles | {"cast_red_green_blue": list(self.cast)}


@dataclass(frozen=True)
class Discoloration:
    """Reconstructions of one model and the errors of their mean colours."""

    images: Tensor  # the reconstructions, B 3 H W in [-1, 1]
    error: ColorError  # theirs
    levels: list[float]  # the noise level t of each step
    # The error of the image estimate x_t - t v at each level (Eq. 6), clipped as a result would be; at the last it is
    # that of the reconstruction.
    along_steps: list[ColorError]

    def content(self, label: str, images: Tensor, names: Sequence[str]) -> dict[str, Any]:
        """Return one model's row as JSON data.

        label: what the model is called.
        images: the originals, B 3 H W in [-1, 1].
        names: one a picture.
        """
        along = zip(self.levels, self.along_steps, strict=True)
        return {
            "model": label,
            "mean_color_error": self.error.content(),
            "psnr": float(psnr(self.images, images).mean()),
            "along_steps": [{"t": t} | error.content() for t, error in along],
            "pictures": dict(zip(names, self.error.per_image, strict=True)),
        }


def color_error(images: Tensor, reference: Tensor) -> ColorError:
    """Return how far the mean colours of images are off. Both are B 3 H W in [-1, 1]."""
    error = 127.5 * (images.cpu().double() - reference.cpu().double()).mean((2, 3))  # B 3
    red, green, blue = error.mean(0).tolist()
    return ColorError(error.abs().mean(1).tolist(), (red, green, blue))


@torch.no_grad()
def discoloration(
    model: FlowMo,
    images: Tensor,
    seeds: Sequence[int],
    sampler: SamplerConfig | None = None,
    batch_size: int = 16,
) -> Discoloration:
    """Reconstruct images B 3 H W in [-1, 1], from one seed each, and follow their mean colours along the sampler."""
    s = sampler or model.config.sampler
    grid = shifted_grid(s.num_steps, s.rho)
    noise = seeded_noise(list(seeds), len(images), (3, *images.shape[2:]))
    estimates: list[list[Tensor]] = [[] for _ in range(s.num_steps)]
    results = []
    for code, start in zip(codes_of(model, images, batch_size).split(batch_size), noise.split(batch_size), strict=True):
        results.append(_follow(model, code, start, s, estimates))
    samples, levels = torch.cat(results), grid[:-1].tolist()
    along = [color_error(torch.cat(parts), images) for parts in estimates[: len(levels)]]
    return Discoloration(samples, color_error(samples, images), levels, along)


def draw_discoloration(run: FigureRun, shown: int, on_done: Callable[[], None] = lambda: None) -> Drawn:
    """Return Figure 7 of the models of a run. shown: images drawn, the first. on_done: called after each model."""
    rows, drawn = [], []
    for label, model, sampler in zip(run.labels, run.models, run.samplers, strict=True):
        found = discoloration(model, run.images, run.seeds, sampler, run.request.batch_size)
        along = [error.mean for error in found.along_steps]
        images = [to_image(image) for image in found.images[:shown]]
        drawn.append(Colors(label, images, found.error.per_image, found.levels, along))
        rows.append(found.content(label, run.images, run.first.names))
        on_done()
    originals = [to_image(image) for image in run.images[:shown]]
    plot = discoloration_figure(originals, drawn, "Discoloration of reconstructions", run.note())
    header = ["mean", "median", "95 %", "worst", "red", "green", "blue", column("psnr").label]
    table = (["error of mean colour", *header], [_cells(row) for row in rows])
    return Drawn({"models": rows}, plot, table=table)


def _cells(row: dict[str, Any]) -> list[str]:
    error = row["mean_color_error"]
    numbers = [f"{error[name]:.2f}" for name in ("mean", "median", "quantile_95", "worst")]
    casts = [f"{cast:+.2f}" for cast in error["cast_red_green_blue"]]
    return [row["model"], *numbers, *casts, f"{row['psnr']:.2f}"]


def _follow(
    model: FlowMo, code: Tensor, noise: Tensor, sampler: SamplerConfig, estimates: list[list[Tensor]]
) -> Tensor:
    """Return ``FlowMo.sample`` of one batch, clipped, and append the image estimate of step k to ``estimates[k]``."""
    levels, noise = shifted_grid(sampler.num_steps, sampler.rho).tolist(), noise.to(model.device)
    given = Condition(code.to(model.device))
    velocity = model.level_velocity(given, noise, levels, Guidance.of(sampler), sampler.solver)
    found: dict[int, Tensor] = {}

    def watched(x_t: Tensor, k: int) -> Tensor:
        v = velocity(x_t, k)
        found[k] = image_estimate(x_t, v, x_t.new_tensor(levels[k])).clamp(-1, 1).cpu()  # the last is of step k's start
        return v

    sample = solve(watched, noise, levels, sampler.solver)
    for k, estimate in found.items():
        estimates[k].append(estimate)
    return sample.clamp(-1, 1).cpu()
