"""Each quantizer trains: 200 short steps on real photographs, then codes of unseen ones say what is in them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from flowmo.config import QuantizerConfig, SamplerConfig, TransformerConfig
from flowmo.flow import ThickTailedLogitNormal, integrate, seeded_noise, shifted_grid
from flowmo.metrics.pixels import psnr
from flowmo.presets import tiny
from flowmo.stages import LossWeights, draw, mode_matching_loss
from flowmo.tokenizer import FlowMo


@pytest.mark.parametrize("kind", ["lfq", "fsq", "bsq", "continuous"])
def test_two_hundred_steps_gain_three_decibels(kind: str, photographs: Callable[[str, int], Tensor]) -> None:
    stream = TransformerConfig(patch_size=8, width=64, depth=2, heads=2)
    config = replace(
        tiny(),
        encoder=stream,
        decoder=stream,
        quantizer=QuantizerConfig(kind=kind),  # type: ignore[arg-type]
        prediction="clean",
        initial_latent="learned",
        latent_positions="grid",
        sampler=SamplerConfig(num_steps=1, guidance_scale=1.0),
    )
    model = FlowMo(config)
    images, unseen = photographs("train", 500), photographs("validation", 64)
    before = reconstruction(model, unseen)
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3, betas=(0.9, 0.95))
    generator = torch.Generator().manual_seed(0)
    levels = ThickTailedLogitNormal(0.03, pure_noise_mass=0.7)
    model.train()
    for _ in range(200):
        batch = images[torch.randint(len(images), (16,), generator=generator)]
        loss = mode_matching_loss(model, batch, draw(batch, levels, 0.0, generator), LossWeights(0.0))
        optimizer.zero_grad()
        loss.total.backward()
        optimizer.step()
    after = reconstruction(model, unseen)
    gain = psnr(after, unseen).mean() - psnr(before, unseen).mean()
    assert gain > 3, f"{gain:.2f} dB"
    # By its code: the reconstruction of another picture is much worse.
    assert psnr(after, unseen).mean() - psnr(after.roll(1, 0), unseen).mean() > 2


@torch.no_grad()
def reconstruction(model: FlowMo, images: Tensor) -> Tensor:
    """One step from noise, by way of the code, which every quantizer has."""
    model.eval()
    code = model.quantize(model.encode(images)).code
    noise = seeded_noise(list(range(len(images))), len(images), (3, 32, 32))
    return integrate(lambda x, t: model.velocity(x, code, t), noise, shifted_grid(1)).clamp(-1, 1)
