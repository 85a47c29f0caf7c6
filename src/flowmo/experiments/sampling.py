"""Many pictures are sampled from the same codes for the sweeps and figures of Section 4 and Appendix C."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from ..config import SamplerConfig
from ..errors import ImageError
from ..flow import seeded_noise
from ..tokenizer import FlowMo

Measure = Callable[[Tensor], dict[str, float]]
"""A function of reconstructions B 3 H W in [-1, 1], in the order of the originals.

It returns numbers by name, lower is better."""


@torch.no_grad()
def codes_of(model: FlowMo, images: Tensor, batch_size: int = 16) -> Tensor:
    """Return the codes B N K of images B 3 H W in [-1, 1] on the CPU, also of a model without tokens."""
    if not len(images):
        raise ImageError("there are no pictures to sample")
    return torch.cat([model.quantize(model.encode(x.to(model.device))).code.cpu() for x in images.split(batch_size)])


@torch.no_grad()
def sample_codes(
    model: FlowMo,
    codes: Tensor,
    size: tuple[int, int],
    seeds: Sequence[int],
    sampler: SamplerConfig | None = None,
    noise_scale: float = 1.0,
    batch_size: int = 16,
) -> Tensor:
    """Return images B 3 H W in [-1, 1] on the CPU, sampled from codes B N K as ``FlowMo.detokenize`` decodes them.

    size: (H, W).
    seeds: one an image.
    sampler: the model's own unless given.
    noise_scale: what x_1, the starting noise, is multiplied with (Appendix C); 1 is ordinary sampling, 0 starts from
    its most likely value.
    """
    noise = noise_scale * seeded_noise(list(seeds), len(codes), (3, *size))
    samples = [
        model.sample(c.to(model.device), z.to(model.device), sampler).clamp(-1, 1).cpu()
        for c, z in zip(codes.split(batch_size), noise.split(batch_size), strict=True)
    ]
    return torch.cat(samples)
