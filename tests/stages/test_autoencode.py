"""The regression that trains an encoder without noise (Table 4; F5), and Stage 1A on its frozen code."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from flowmo.arch import Condition
from flowmo.flow import ThickTailedLogitNormal
from flowmo.presets import tiny
from flowmo.stages import LossWeights, autoencode_loss, draw, mode_matching_loss, regress
from flowmo.tokenizer import FlowMo
from flowmo.training.optimization.ema import WeightNormalization


def distance(image: Tensor, reference: Tensor) -> Tensor:
    return (image - reference).abs().mean((1, 2, 3))


@pytest.fixture
def images(samples: Callable[[int], Tensor]) -> Tensor:
    return samples(32)


@pytest.mark.parametrize("prediction", ["velocity", "clean"])
def test_terms_written_out(prediction: str, images: Tensor, lively: Callable[[nn.Module], nn.Module]) -> None:
    """The decoder is asked once, at t = 1 without noise; the terms are those of Eq. 9 otherwise."""
    model = lively(FlowMo(replace(tiny(), prediction=prediction))).train()  # type: ignore[arg-type]
    weights = LossWeights(perceptual=0.3, entropy=0.2, commitment=0.05)
    loss = autoencode_loss(model, images, weights, distance, 0.5)  # type: ignore[arg-type]
    quantized = model.quantize(model.encode(images))
    output = model.decoder(torch.zeros_like(images), Condition(quantized.code).channels(), torch.ones(8))
    estimate = output if prediction == "clean" else -output
    assert torch.allclose(loss.reconstruction, ((estimate - images) ** 2).mean(), rtol=1e-5)
    assert torch.allclose(loss.perceptual, distance(estimate[:4], images[:4]).mean(), rtol=1e-5)
    entropy = loss.sample_entropy - loss.codebook_entropy
    total = loss.reconstruction + 0.3 * loss.perceptual + 0.2 * entropy + 0.05 * loss.commitment
    assert torch.allclose(loss.total, total)
    without = autoencode_loss(model, images, replace(weights, perceptual=0.0), distance)  # type: ignore[arg-type]
    assert without.perceptual == 0


def test_the_gradient_reaches_both_sides(images: Tensor, lively: Callable[[nn.Module], nn.Module]) -> None:
    """Through the code alone, and every weight of the encoder but what B4 leaves dead."""
    model = lively(FlowMo(tiny())).train()
    autoencode_loss(model, images, LossWeights(0.0, 0.0, 0.0)).total.backward()  # type: ignore[arg-type]
    dead = {name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()}
    assert dead == {"encoder.code_in.weight", "decoder.image_in.weight"}  # fed with zeros


def test_it_learns_and_stage_1a_goes_on_with_its_code(photographs: Callable[[str, int], Tensor]) -> None:
    """After a hundred steps on real photographs the code is decoded to its own picture; then Stage 1A trains
    the decoder while the frozen encoder keeps its tokens."""
    images = photographs("train", 256)
    config = replace(tiny(), modulation="shared", initial_latent="learned", latent_positions="grid")
    model = FlowMo(config).train()
    normalization = WeightNormalization(model)
    generator = torch.Generator().manual_seed(0)

    def train(loss: Callable[[Tensor], Tensor], steps: int) -> list[float]:
        optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=2e-3, betas=(0.9, 0.95))
        found = []
        for _ in range(steps):
            value = loss(images[torch.randint(len(images), (16,), generator=generator)])
            optimizer.zero_grad()
            value.backward()
            optimizer.step()
            normalization.apply()
            found.append(value.item())
        return found

    weights = LossWeights(perceptual=0.0, commitment=0.01)
    train(lambda batch: autoencode_loss(model, batch, weights).total, 100)
    with torch.no_grad():
        code = model.quantize(model.encode(images)).code
        decoded = regress(model, code, images.shape)
        error = (decoded - images).square().mean()
        blank = images.var(dim=0).mean()  # the best that a picture without a code could do
        wrong = (regress(model, code.roll(1, 0), images.shape) - images).square().mean()
    assert error < 0.7 * blank < wrong

    tokens = model.tokenize(images[:8])
    model.encoder.requires_grad_(False)
    levels = ThickTailedLogitNormal()

    def flow(batch: Tensor) -> Tensor:
        return mode_matching_loss(model, batch, draw(batch, levels, 0.1, generator), weights).flow

    losses = train(flow, 40)
    assert sum(losses[-10:]) < 0.9 * sum(losses[:10])
    assert torch.equal(model.tokenize(images[:8]).indices, tokens.indices)
