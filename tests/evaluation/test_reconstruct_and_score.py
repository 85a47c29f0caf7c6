"""Reconstructions with their rate and scores, in one call, as a notebook asks for them."""

from __future__ import annotations

from dataclasses import replace

import torch

from flowmo.config import QuantizerConfig
from flowmo.evaluation.reconstruction import reconstruct_and_score
from flowmo.metrics.pixels import psnr
from flowmo.presets import tiny
from flowmo.tokenizer import FlowMo

IMAGES = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1


def test_a_model_with_tokens() -> None:
    model = FlowMo(tiny()).eval()
    found = reconstruct_and_score(model, IMAGES, None, seed=3)
    assert torch.equal(found.images, model.detokenize(model.tokenize(IMAGES), seed=3))
    assert found.bits == 16 * 18
    assert found.rate() == {"payload_bytes": 36, "file_bytes": 60, "bits_per_pixel": 288 / 1024}
    for one, exact in zip(found.scores, psnr(found.images, IMAGES).tolist(), strict=True):
        assert abs(one.psnr - exact) < 0.1  # scores are of 8 bits
        assert one.lpips is None
        assert one.thumbnail_psnr > 0


def test_a_continuous_latent_has_no_rate() -> None:
    model = FlowMo(replace(tiny(), quantizer=QuantizerConfig(kind="continuous"))).eval()
    found = reconstruct_and_score(model, IMAGES, None, seed=3)
    assert torch.equal(found.images, model.reconstruct(IMAGES, seed=3))
    assert set(found.rate().values()) == {None}
    assert len(found.scores) == 2
