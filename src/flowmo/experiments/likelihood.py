"""The likelihood of pictures is measured given their own code, another picture's, or none (Section 3.4).

The three are measured with the same dequantization noise and the same probes, so that their differences are pairs.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..config import to_dict
from ..errors import ConfigError
from ..flow.likelihood import (
    DEQUANTIZATION_T,
    Likelihood,
    Probes,
    likelihood_grid,
    log_likelihood,
    starting_state,
)
from ..flow.solvers import Solver, asked_levels
from ..metrics.bootstrap import paired_bootstrap
from ..text import Table, number
from ..tokenizer import SMALLEST_TRAINING_T, FlowMo
from .sampling import codes_of

CONDITIONS = ("own", "other", "null")


@dataclass(frozen=True)
class LikelihoodSettings:
    """How likelihoods are measured."""

    num_steps: int = 25  # of ``likelihood_grid``
    rho: float = 4.0  # of ``likelihood_grid``
    start: float = DEQUANTIZATION_T  # the lowest noise level of ``likelihood_grid``; see :func:`default_start`
    solver: Solver = "heun"  # or "euler"
    probes: Probes = "rademacher"  # or "normal", or "exact" for the whole trace
    num_probes: int = 4  # how many of them

    def __post_init__(self) -> None:
        likelihood_grid(self.num_steps, self.rho, self.start)
        if self.num_probes < 1:
            raise ConfigError(f"num_probes must be at least 1, got {self.num_probes}")

    @property
    def evaluations(self) -> int:
        """Return the passes of the decoder for an image and a condition, each with a backward pass for every probe."""
        return len(asked_levels(likelihood_grid(self.num_steps, self.rho, self.start).tolist(), self.solver))


def default_start(model: FlowMo) -> float:
    """Return the lowest noise level at which the model was trained to give velocities.

    It is that of dequantization, or, of a clean prediction, the level below which its loss takes t for larger than it
    is (O3).
    """
    return SMALLEST_TRAINING_T if model.config.prediction == "clean" else DEQUANTIZATION_T


def model_likelihood(
    model: FlowMo,
    images: Tensor,
    seeds: Sequence[int],
    settings: LikelihoodSettings,
    conditions: Sequence[str] = CONDITIONS,
    batch_size: int = 16,
    done: Callable[[int], None] = lambda count: None,
) -> dict[str, Likelihood]:
    """Return the log-likelihoods of images B 3 H W in [-1, 1] under each condition, on the CPU.

    "own" is log p(x | c(x)), c of the image as it is, before dequantization.
    "other" is given the code of the next image in the list, the first after the last.
    "null" is the null condition (C3), p(x).
    There is no guidance, since a guided velocity belongs to no density of the model's.
    seeds: one an image.
    done: called with a number of images that are done under one condition.
    Raises ConfigError for an unknown condition, or "other" of a single image.
    """
    unknown = [name for name in conditions if name not in CONDITIONS]
    if unknown or not conditions:
        raise ConfigError(f"a condition is one of {', '.join(CONDITIONS)}, got {', '.join(unknown) or 'none'}")
    if "other" in conditions and len(images) < 2:
        raise ConfigError('the condition "other" takes the code of another picture; give at least two')
    codes = codes_of(model, images, batch_size)
    given: dict[str, Tensor | None] = {"own": codes, "other": codes.roll(-1, 0), "null": None}
    grid, found = likelihood_grid(settings.num_steps, settings.rho, settings.start), {}
    for name in conditions:
        parts = []
        for first in range(0, len(images), batch_size):
            rows = slice(first, first + batch_size)
            condition = given[name]
            code = None if condition is None else condition[rows].to(model.device)
            x = starting_state(images[rows], settings.start, seeds[rows]).to(model.device)

            def velocity(x_t: Tensor, t: Tensor, code: Tensor | None = code) -> Tensor:
                return model.velocity(x_t, code, t, exact=True)

            how = (settings.solver, settings.probes, settings.num_probes)
            parts.append(_to_cpu(log_likelihood(velocity, x, grid, seeds[rows], *how)))
            done(len(x))
        found[name] = Likelihood(*(torch.cat(column) for column in zip(*parts, strict=True)))
    return found


def likelihood_content(
    settings: LikelihoodSettings, found: dict[str, Likelihood], names: Sequence[str], dimensions: int
) -> dict[str, Any]:
    """Return all that was measured as JSON data.

    names: one an image.
    dimensions: how many numbers an image has, 3 H W.
    """
    return {
        "settings": to_dict(settings),
        "decoder_evaluations": settings.evaluations,
        "dimensions": dimensions,
        **summary(found),
        "pictures": table(found, names),
    }


def likelihood_table(content: dict[str, Any]) -> Table:
    """Return the means of :func:`likelihood_content`."""
    rows = []
    for name, mean in content["means"].items():
        error = number(mean["probe_standard_error_nats"], ",.0f", "n/a")
        rows.append([name, f"{mean['nats_per_image']:,.0f}", error, f"{mean['bits_per_dimension']:.3f}"])
    return ["given code", "nats/image", "error of probes", "bits/dimension"], rows


def differences_in_words(content: dict[str, Any]) -> list[str]:
    """Return a line for each difference of :func:`likelihood_content`."""
    lines = []
    for name, difference in content["differences"].items():
        low, high = difference["interval"]
        lines.append(
            f"{name}: {difference['nats_per_image']:+,.0f} nats an image (95 %: {low:+,.0f} to {high:+,.0f}); "
            f"{difference['share_of_images_likelier']:.0%} of the pictures are likelier"
        )
    return lines


def summary(found: dict[str, Likelihood]) -> dict[str, object]:
    """Return means over images with their standard errors, and how much likelier "own" makes them than the others.

    Differences are of pairs, in nats an image, with intervals of 95 % over images (paired bootstrap).
    """
    means = {}
    for name, each in found.items():
        bits = each.bits_per_dimension
        means[name] = {
            "nats_per_image": float(each.log_density.mean()),
            "nats_per_dimension": float(each.nats_per_dimension.mean()),
            "bits_per_dimension": float(bits.mean()),
            "bits_per_dimension_standard_error_over_images": _finite(bits.std() / math.sqrt(len(bits))),
            "probe_standard_error_nats": _finite(each.standard_error.square().mean().sqrt()),
        }
    differences = {}
    for name in found:
        if name == "own" or "own" not in found or len(found["own"].log_density) < 2:
            continue
        own, other = found["own"].log_density.numpy(), found[name].log_density.numpy()
        nats = paired_bootstrap(own, other)
        differences[f"own - {name}"] = {
            "nats_per_image": nats.mean,
            "interval": [nats.low, nats.high],
            "bits_per_dimension": nats.mean / found["own"].dimensions / math.log(2),
            "share_of_images_likelier": float((own > other).mean()),
        }
    return {"means": means, "differences": differences}


def table(found: dict[str, Likelihood], names: Sequence[str]) -> dict[str, dict[str, dict[str, float | None]]]:
    """Return the numbers of every image under each condition, by the image's name."""
    return {
        name: {
            condition: {
                "nats": float(each.log_density[i]),
                "bits_per_dimension": float(each.bits_per_dimension[i]),
                "standard_error_nats": _finite(each.standard_error[i]),
            }
            for condition, each in found.items()
        }
        for i, name in enumerate(names)
    }


def _to_cpu(found: Likelihood) -> tuple[Tensor, ...]:
    parts = (found.log_density, found.standard_error, found.noise, found.prior, found.divergence)
    return tuple(part.cpu() for part in parts)


def _finite(value: Tensor) -> float | None:
    number = float(value)
    return number if math.isfinite(number) else None
