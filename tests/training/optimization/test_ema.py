"""After each update: weights keep their norm, and the average is one (A15, A16)."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from flowmo.flow import ThickTailedLogitNormal
from flowmo.presets import flowmo_mini_64, tiny
from flowmo.stages import LossWeights, draw, mode_matching_loss
from flowmo.tokenizer import FlowMo
from flowmo.training import TrainConfig, TrainState
from flowmo.training.optimization.ema import EMA, WeightNormalization


def block_linears(model: FlowMo) -> dict[str, nn.Linear]:
    return {n: m for n, m in model.named_modules() if ".blocks." in n and isinstance(m, nn.Linear)}


@pytest.mark.parametrize("preset", [tiny, flowmo_mini_64])
def test_every_linear_of_a_block_keeps_its_norm(preset: Callable, samples: Callable[[int], Tensor]) -> None:  # type: ignore[type-arg]
    """Whole matrix by whole matrix, AdaLN included, through real steps; biases and the rest move freely."""
    model = FlowMo(preset())
    linears = block_linears(model)
    assert any("modulation" in name for name in linears) == (preset is tiny)  # shared modulation is outside the blocks
    state = TrainState.start(model, TrainConfig(learning_rate=1e-2))
    assert state.normalization is not None
    before = {name: linear.weight.detach().clone() for name, linear in linears.items()}
    biases = {name: linear.bias.detach().clone() for name, linear in linears.items()}
    outside = {n: p.detach().clone() for n, p in model.named_parameters() if ".blocks." not in n}
    images = samples(model.config.image_size)[:4]
    generator = torch.Generator().manual_seed(0)
    for _ in range(4):
        state.optimizer.zero_grad()
        draws = draw(images, ThickTailedLogitNormal(), 0.1, generator)
        mode_matching_loss(model, images, draws, LossWeights(0.0)).total.backward()
        state.optimizer.step()
        moved = {name: linear.bias.detach().clone() for name, linear in linears.items()}
        state.normalization.apply()
        assert all(torch.equal(linear.bias, moved[name]) for name, linear in linears.items())
    for name, linear in linears.items():
        assert linear.weight.norm().item() == pytest.approx(before[name].norm().item(), rel=1e-5), name
        assert not torch.equal(linear.weight, before[name]), name
        assert not torch.equal(linear.bias, biases[name]), name
    assert any(
        abs((p.norm() / outside[n].norm()).item() - 1) > 1e-3 for n, p in model.named_parameters() if n in outside
    )


def test_norms_are_those_of_the_weights_at_the_start() -> None:
    """Measured again where a run starts from other weights (A15)."""
    model = FlowMo(tiny())
    with torch.no_grad():
        for linear in block_linears(model).values():
            linear.weight *= 3
    normalization = WeightNormalization(model)
    expected = {name: linear.weight.detach().clone() for name, linear in block_linears(model).items()}
    with torch.no_grad():
        for linear in block_linears(model).values():
            linear.weight *= 0.1
    normalization.apply()
    assert all(torch.allclose(linear.weight, expected[n]) for n, linear in block_linears(model).items())


def test_moving_average_is_the_weighted_mean() -> None:
    model = nn.Linear(3, 2)
    average = EMA(model)
    expected = model.weight.detach().clone()
    for decay in (0.5, 0.9, 0.0, 0.99):
        with torch.no_grad():
            model.weight += torch.randn(2, 3)
        average.update(decay)
        expected = decay * expected + (1 - decay) * model.weight.detach()
        assert torch.allclose(average.weights["weight"], expected, atol=1e-6)


def test_the_average_of_frozen_weights_is_they_to_the_bit() -> None:
    """The sign of a zero too: it enters the fingerprint, by which token files know their model."""
    weights = torch.tensor([-0.0, 0.0, 1 / 3, -1e-30])
    model = nn.ParameterDict({"frozen": nn.Parameter(weights.clone(), requires_grad=False)})
    average = EMA(model)
    for _ in range(3):
        average.update(0.7)
    assert torch.equal(average.weights["frozen"].view(torch.int32), weights.view(torch.int32))
