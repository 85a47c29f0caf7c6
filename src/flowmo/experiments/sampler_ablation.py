"""Each part that makes the sampler of Section 3.4 fast is timed alone, from the plain path to ``FlowMo.sample``."""

from __future__ import annotations

import copy
import statistics
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from torch import Tensor

from ..arch import Condition
from ..config import SamplerConfig, from_dict, to_dict
from ..flow import (
    Guidance,
    Velocity,
    function_evaluations,
    integrate,
    seeded_noise,
    shifted_grid,
    velocity_from_estimate,
)
from ..presets import at_size
from ..profiling.flops import flops_per_image, matrix_ceiling
from ..profiling.speed import precision
from ..tokenizer import FlowMo
from .decoding import time_in_turn


@dataclass(frozen=True)
class Ablation:
    """One way to sample a batch."""

    name: str  # in words
    seconds: float  # of a batch, the median
    seconds_per_pass: float  # of a pass of the decoder
    images_per_second: float  # at the median
    ratio: float  # how many times as fast as the plain path, median over rounds in which both took their turn
    difference: float  # the largest of its pictures from the plain ones, which lie in [-1, 1]


@torch.no_grad()
def measure_sampler_ablation(
    model: FlowMo,
    images: Tensor,
    sampler: SamplerConfig,
    dtype: str = "fp32",
    repeats: int = 3,
    expect: Callable[[int], None] = lambda count: None,
    advance: Callable[[], None] = lambda: None,
) -> list[Ablation]:
    """Sample the codes of images B 3 H W by each path, in turns, and return a row for each, the plain one first.

    dtype: "fp32"; "bf16" runs all of them under autocast.
    expect: is told how many times a batch will be sampled; advance: is called after each.
    A compiled path is measured on a GPU alone.
    """
    device = model.device
    images = images.to(device)
    code = model.quantize(model.encode(images)).code
    noise = seeded_noise(0, len(images), (3, *images.shape[2:])).to(device)

    def fast(ready: FlowMo) -> Callable[[], Tensor]:
        return lambda: ready.sample(code, noise, sampler)

    half = copy.deepcopy(model).prepare(dtype=torch.bfloat16)
    paths = {
        "plain": lambda: plain_sample(model, code, noise, sampler),
        "both conditions in one pass": lambda: one_pass_sample(model, code, noise, sampler),
        "noise levels computed once": lambda: levels_once_sample(model, code, noise, sampler),
        "all": fast(model),
        "all, weights in bf16": fast(half),
    }
    if device.type == "cuda":
        paths["all, compiled"] = fast(copy.deepcopy(model).prepare(compile=True, chunk_size=len(images)))
        paths["all, bf16, compiled"] = fast(copy.deepcopy(half).prepare(compile=True, chunk_size=len(images)))
    samples: dict[str, Tensor] = {}

    def timed(name: str) -> Callable[[], None]:
        def work() -> None:
            samples[name] = paths[name]().clamp(-1, 1).cpu()  # the host waits for a GPU
            advance()

        return work

    expect((repeats + 1) * len(paths))  # the first round does not count
    with precision(device, dtype):
        seconds = time_in_turn({name: timed(name) for name in paths}, repeats)
    nfe, plain = function_evaluations(sampler), seconds["plain"]
    found = []
    for name, times in seconds.items():
        median = statistics.median(times)
        ratio = statistics.median(a / b for a, b in zip(plain, times, strict=True))
        difference = float((samples[name] - samples["plain"]).abs().max())
        found.append(Ablation(name, median, median / nfe, len(images) / median, ratio, difference))
    return found


def with_utilisation(
    found: Iterable[Ablation], model: FlowMo, size: tuple[int, int], sampler: SamplerConfig, dtype: str = "fp32"
) -> list[dict[str, Any]]:
    """Return the rows as JSON data, with the utilisation of the model's device in those of square images.

    size: (height, width) in pixels. dtype, sampler: as :func:`measure_sampler_ablation` was given them.
    """
    rows = [asdict(one) for one in found]
    if size[0] == size[1]:
        flops = flops_per_image(at_size(model.config, size[0]), None).decoder * function_evaluations(sampler)
        for row in rows:
            half = dtype == "bf16" or "bf16" in row["name"]
            ceiling = matrix_ceiling(model.device, torch.bfloat16 if half else torch.float32)
            row["utilisation"] = flops * row["images_per_second"] / ceiling
    return rows


def ablation_content(
    model: FlowMo,
    images: Tensor,
    num_steps: int,
    dtype: str = "fp32",
    repeats: int = 3,
    expect: Callable[[int], None] = lambda count: None,
    advance: Callable[[], None] = lambda: None,
) -> dict[str, Any]:
    """Return the ablation of the paper's sampler in ``num_steps`` steps, as JSON data: its "sampler" and "rows".

    expect, advance: as for :func:`measure_sampler_ablation`.
    """
    sampler = replace(SamplerConfig(), num_steps=num_steps)
    found = measure_sampler_ablation(model, images, sampler, dtype, repeats, expect, advance)
    rows = with_utilisation(found, model, (images.shape[2], images.shape[3]), sampler, dtype)
    return {"sampler": to_dict(sampler), "rows": rows}


def ablation_in_words(content: dict[str, Any]) -> str:
    """Return which sampler an ablation was of."""
    sampler: SamplerConfig = from_dict(SamplerConfig, content["sampler"])
    nfe = function_evaluations(sampler)
    return f"{sampler.num_steps} steps, guidance {sampler.guidance_scale:g}, {nfe} passes"


def plain_sample(model: FlowMo, code: Tensor, noise: Tensor, sampler: SamplerConfig) -> Tensor:
    """Return samples, each pass of the decoder made by itself (Eq. 13-14, E1)."""
    velocity = Guidance.of(sampler)(
        lambda x, t: model.velocity(x, code, t, exact=True), lambda x, t: model.velocity(x, None, t, exact=True)
    )
    return integrate(velocity, noise, shifted_grid(sampler.num_steps, sampler.rho), solver=sampler.solver)


def one_pass_sample(model: FlowMo, code: Tensor, noise: Tensor, sampler: SamplerConfig) -> Tensor:
    """Return samples; where guidance acts, both conditions share a pass, the null condition as a dropped code."""
    guidance, keep = Guidance.of(sampler), torch.arange(2 * len(code), device=code.device) < len(code)

    def velocity(x: Tensor, t: Tensor) -> Tensor:
        if not guidance.acts(float(t[0])):
            return model.velocity(x, code, t, exact=True)
        either = Condition(code.repeat(2, 1, 1)).keep_images(keep)
        both = model.velocity(x.repeat(2, 1, 1, 1), either, t.repeat(2), exact=True)
        return guidance.combine(*both.chunk(2))

    return integrate(velocity, noise, shifted_grid(sampler.num_steps, sampler.rho), solver=sampler.solver)


def levels_once_sample(model: FlowMo, code: Tensor, noise: Tensor, sampler: SamplerConfig) -> Tensor:
    """Return samples for which all that steps share was computed once, before the first step.

    These are embeddings and modulations of all noise levels, the rotary table and ``code_in``.
    """
    grid, decoder = shifted_grid(sampler.num_steps, sampler.rho), model.decoder
    t = grid[:-1].to(noise)
    levels = dict(zip(t.tolist(), decoder.conditionings(t), strict=True))

    def prepared(given: Condition) -> Velocity:
        context = decoder.context(given.channels(), noise)

        def velocity(x: Tensor, t: Tensor) -> Tensor:
            output = decoder.forward_blocks(x, context, levels[float(t[0])])
            return output if model.config.prediction == "velocity" else velocity_from_estimate(x, output, t)

        return velocity

    velocity = Guidance.of(sampler)(prepared(Condition(code)), prepared(Condition(code).null()))
    return integrate(velocity, noise, grid, solver=sampler.solver)
