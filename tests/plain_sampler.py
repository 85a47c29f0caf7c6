"""The sampler in its plain form: each pass by itself, nothing kept from the one before (Section 3.4, Eq. 13-14)."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor

from flowmo.config import SamplerConfig
from flowmo.tokenizer import FlowMo


@torch.no_grad()
def plain_sample(model: FlowMo, code: Tensor, noise: Tensor, sampler: SamplerConfig) -> Tensor:
    """What ``FlowMo.sample`` promises: Euler steps down the grid of Eq. 14, guided inside the interval (E1)."""
    n, rho = sampler.num_steps, sampler.rho
    grid = [(k / n) ** rho for k in range(n, -1, -1)]
    low, high = sampler.guidance_interval
    x = noise
    for now, after in pairwise(grid):
        t = torch.full((len(x),), now)
        v = model.velocity(x, code, t, exact=True)
        if low <= now <= high:
            null = model.velocity(x, None, t, exact=True)
            v = null + sampler.guidance_scale * (v - null)
        x = x + (after - now) * v
    return x
