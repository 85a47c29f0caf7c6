"""Log-likelihood by the reverse ODE, from image to noise (Section 3.4). Knows no network; any (x_t, t) -> v.

Along dx_t / dt = v the density obeys d log p_t(x_t) / dt = -div v, so with x_1 ~ N(0, I)

    log p(x) = log N(x_1; 0, I) + integral over t from 0 to 1 of div v(x_t, t).

The integral begins at a level above 0, for two reasons. An image of 256 levels has no density. And the velocity of a
clean prediction, (x_t - estimate) / t, has no value at t = 0, and is not trained as one below the level that its loss
was cut at. :func:`starting_state` says with which x_t the integral begins.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor

from ..errors import ConfigError
from .grids import shifted_grid
from .guidance import Velocity
from .path import interpolate
from .solvers import Solver, corrected

LEVEL_WIDTH = 2 / 255
"""Distance of neighbouring 8-bit levels where 0 ... 255 are -1 ... 1."""
DEQUANTIZATION_T = LEVEL_WIDTH / math.sqrt(12)
"""The noise level whose noise is as large as that of dequantization: 0.00226."""

Probes = Literal["rademacher", "normal", "exact"]


@dataclass(frozen=True)
class Likelihood:
    """The log-likelihoods of a batch of images, and what they are made of. All but ``noise`` are float64."""

    log_density: Tensor  # log p(x) of each image in nats, (B,)
    standard_error: Tensor  # of the log-density, over probes, (B,); NaN of one probe, 0 of the exact trace
    noise: Tensor  # x_1 that the image came from, B ...
    prior: Tensor  # log N(x_1; 0, I), (B,)
    divergence: Tensor  # integral of the divergence by each probe, (B, probes)

    @property
    def dimensions(self) -> int:
        """Return D, how many numbers an image has."""
        return self.noise[0].numel()

    @property
    def nats_per_dimension(self) -> Tensor:
        """Return log p(x) / D, (B,): the higher the likelier."""
        return self.log_density / self.dimensions

    @property
    def bits_per_dimension(self) -> Tensor:
        """Return -log2 of the probability of an 8-bit image, divided by D, (B,): the lower the likelier.

        It is 8 for uniform noise. The probability of a level is the density times ``LEVEL_WIDTH``; with dequantization
        this is an upper bound in expectation, as for other likelihood models. Of a noised image it is the same formula,
        but no code length.
        """
        return -(self.nats_per_dimension + math.log(LEVEL_WIDTH)) / math.log(2)


def starting_state(images: Tensor, start: float, seeds: Sequence[int]) -> Tensor:
    """Return x_t at the level ``start`` of 8-bit images B ... in [-1, 1], with one seed an image.

    Uniform noise as wide as a level and centred on it is added first (dequantization).
    Up to ``DEQUANTIZATION_T`` that is all the noise, and the likelihood is one of 8-bit images.
    Above it, x_t = (1 - t) x + t z with z normal (Eq. 4), and the likelihood is that of the noised image.
    """
    _check_seeds(images, seeds)
    uniform, normal = [], []
    for seed in seeds:
        generator = torch.Generator().manual_seed(seed)
        uniform.append(torch.rand(images.shape[1:], generator=generator))
        normal.append(torch.randn(images.shape[1:], generator=generator))
    x = images + LEVEL_WIDTH * (torch.stack(uniform).to(images) - 0.5)
    return x if start <= DEQUANTIZATION_T else interpolate(x, torch.stack(normal).to(x), torch.tensor(start))


def likelihood_grid(num_steps: int, rho: float = 4.0, start: float = DEQUANTIZATION_T) -> Tensor:
    """Return the sampler's levels (Eq. 14) backwards, from ``start`` up to 1.

    They are start + (1 - start) (k / n)^rho for k = 0 ... n.
    Raises ConfigError for a start outside [0, 1), and as :func:`shifted_grid`.
    """
    if not 0 <= start < 1:
        raise ConfigError(f"the likelihood's first noise level must lie in [0, 1), got {start}")
    return start + (1 - start) * shifted_grid(num_steps, rho).flip(0)


def log_likelihood(
    velocity: Velocity,
    x: Tensor,
    grid: Tensor,
    seeds: Sequence[int],
    solver: Solver = "heun",
    probes: Probes = "rademacher",
    num_probes: int = 1,
) -> Likelihood:
    """Return the log-likelihoods of images x (B ...), which are carried along ``grid`` to noise.

    No gradients are kept, and none of the weights are asked for.

    velocity: one image's result must not depend on the others.
    grid: (n + 1,) levels that rise to 1; x counts as x_t at the first of them.
    seeds: one an image, of its probes. A fresh probe is drawn at every evaluation, so the errors of steps average out,
    and each column of probes is an unbiased estimate by itself.
    probes: "exact" takes the whole trace, D backward passes an evaluation.
    Raises ConfigError for another grid, solver or kind of probes.
    """
    levels = grid.tolist()
    if len(levels) < 2 or any(b <= a for a, b in pairwise(levels)) or levels[-1] != 1:
        raise ConfigError(f"a likelihood needs noise levels that rise to 1, got {levels[:3]} ... {levels[-1:]}")
    if solver not in ("euler", "heun") or probes not in ("rademacher", "normal", "exact") or num_probes < 1:
        raise ConfigError(f"no likelihood by solver {solver!r} and {num_probes} probes {probes!r}")
    _check_seeds(x, seeds)
    draw = _Draw(x, seeds, probes, num_probes)

    def slope(x: Tensor, t: float) -> tuple[Tensor, Tensor]:
        return _with_divergence(velocity, x, torch.full((len(x),), t, device=x.device, dtype=x.dtype), draw)

    x = x.detach()
    divergence = torch.zeros(len(x), 1 if probes == "exact" else num_probes, dtype=torch.float64, device=x.device)
    for now, after in pairwise(levels):
        step = after - now
        v, d = slope(x, now)
        if corrected(after, solver):
            v_after, d_after = slope(x + step * v, after)
            v, d = (v + v_after) / 2, (d + d_after) / 2
        x, divergence = x + step * v, divergence + step * d
    prior = -0.5 * (x.cpu().double().flatten(1) ** 2 + math.log(2 * math.pi)).sum(1)
    error = torch.full_like(prior, 0 if probes == "exact" else math.nan)
    if divergence.shape[1] > 1:
        error = divergence.std(1) / math.sqrt(num_probes)
    return Likelihood(prior + divergence.mean(1), error, x, prior, divergence)


class _Draw:
    """Probes of every image from its own generator, or the unit vectors of the exact trace, each (B ...)."""

    def __init__(self, x: Tensor, seeds: Sequence[int], kind: Probes, count: int) -> None:
        self.kind, self.count = kind, count
        self.generators = [torch.Generator().manual_seed(seed) for seed in seeds]

    def __call__(self, x: Tensor) -> list[Tensor]:
        return [torch.stack([self._one(x[0], g) for g in self.generators]).to(x) for _ in range(self.count)]

    def _one(self, like: Tensor, generator: torch.Generator) -> Tensor:
        if self.kind == "normal":
            return torch.randn(like.shape, generator=generator)
        return torch.randint(0, 2, like.shape, generator=generator) * 2.0 - 1


@torch.enable_grad()
def _with_divergence(velocity: Velocity, x: Tensor, t: Tensor, draw: _Draw) -> tuple[Tensor, Tensor]:
    """Return v(x, t), B ..., and its divergence (B, probes).

    It is estimated by each probe e, e . (dv/dx)^T e (Hutchinson), or exact, (B, 1).
    """
    x = x.detach().requires_grad_()
    v = velocity(x, t).to(x.dtype)

    def transposed(e: Tensor) -> Tensor:
        return torch.autograd.grad(v, x, e, retain_graph=True)[0]

    if draw.kind == "exact":
        trace = torch.zeros(len(x), dtype=torch.float64, device=x.device)
        for i in range(x[0].numel()):
            unit = torch.zeros_like(x).flatten(1)
            unit[:, i] = 1
            trace += transposed(unit.view_as(x)).flatten(1)[:, i].cpu().double()
        return v.detach(), trace[:, None]
    estimates = [(transposed(e).cpu().double() * e.cpu().double()).flatten(1).sum(1) for e in draw(x)]
    return v.detach(), torch.stack(estimates, 1)


def _check_seeds(images: Tensor, seeds: Sequence[int]) -> None:
    if len(seeds) != len(images) or not len(images):
        raise ConfigError(f"{len(seeds)} seeds for {len(images)} images; give one seed an image")
