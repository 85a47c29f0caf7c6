"""The coordinate check (Section 4.1; B1): flat under muP, and each multiplier that is taken away is seen."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace

import pytest
from torch import Tensor

from flowmo.arch.block import TwoStreamBlock
from flowmo.arch.mup import linears
from flowmo.errors import ConfigError, TrainingError
from flowmo.presets import tiny
from flowmo.profiling.coordinate_check import Built, Slope, build, coordinates, slopes, widened
from flowmo.tokenizer import FlowMo

BASE = replace(tiny(), num_tokens=4)
FACTORS = (1, 2, 4)

Removal = Callable[[FlowMo, Mapping[str, float], int], Mapping[str, float]]
"""Takes one thing out of a model that is ``factor`` times as wide, or out of its learning-rate scales."""


@pytest.fixture(scope="module")
def images(samples: Callable[[int], Tensor]) -> Tensor:
    return samples(32)[:4]


def slopes_of(build_at: Callable[[int], Built], images: Tensor) -> dict[str, Slope]:
    return {slope.layer: slope for slope in slopes(coordinates(build_at, FACTORS, images))}


def off(found: dict[str, Slope]) -> set[str]:
    return {layer for layer, slope in found.items() if not slope.holds()}


@pytest.fixture(scope="module")
def under_mup(images: Tensor) -> dict[str, Slope]:
    return slopes_of(lambda factor: build(widened(BASE, factor, True)), images)


def test_layers_are_named_in_the_order_of_the_forward_pass(under_mup: dict[str, Slope]) -> None:
    names = list(under_mup)
    assert names[:2] == ["encoder image_in", "encoder code_in"]
    assert names.index("encoder readout") < names.index("decoder image_in")
    assert names[-1] == "decoder readout"
    for i in range(2):
        assert {
            f"{side} block {i} {part}" for side in ("encoder", "decoder") for part in ("logits", "code", "image")
        } <= {*names}
        assert f"decoder block {i} code_stream modulation" in names
    assert len(names) == 24


def test_mup_is_flat(under_mup: dict[str, Slope]) -> None:
    assert off(under_mup) == set()


def test_more_heads_are_as_good_as_wider_ones(images: Tensor) -> None:
    """The logits are then sums over a head of fixed width, and keep their size from the start."""
    points = coordinates(lambda factor: build(widened(BASE, factor, True, by="heads")), FACTORS, images)
    assert off({slope.layer: slope for slope in slopes(points, wider_heads=False)}) == set()


def test_the_default_parametrisation_grows(images: Tensor) -> None:
    """What muP is for: at one learning rate, wider layers move farther."""
    found = slopes_of(lambda factor: build(widened(BASE, factor, False)), images)
    for layer in ("encoder block 0 image", "encoder block 1 code", "encoder readout", "decoder readout"):
        change = found[layer].change
        assert change is not None
        assert change > 0.35, layer
    modulation = found["decoder block 0 image_stream modulation"]
    assert (modulation.size or 0) < -0.25 < 0.35 < (modulation.change or 0)


def without_hidden_rates(_model: FlowMo, _scales: Mapping[str, float], _factor: int) -> Mapping[str, float]:
    return {}


def with_input_rates_scaled_too(_model: FlowMo, scales: Mapping[str, float], factor: int) -> Mapping[str, float]:
    return dict.fromkeys(scales, 1 / factor)


def without_readout_multiplier(model: FlowMo, scales: Mapping[str, float], _factor: int) -> Mapping[str, float]:
    model.encoder.readout.multiplier = model.decoder.readout.multiplier = 1.0
    return scales


def without_initial_readouts(model: FlowMo, scales: Mapping[str, float], factor: int) -> Mapping[str, float]:
    for side in (model.encoder, model.decoder):
        side.readout.weight.data /= math.sqrt(factor)
    return scales


def without_initial_biases(model: FlowMo, scales: Mapping[str, float], factor: int) -> Mapping[str, float]:
    for side in (model.encoder, model.decoder):
        for _, linear, fan_in_grows, fan_out_grows in linears(side):
            if fan_in_grows and fan_out_grows:
                linear.bias.data /= math.sqrt(factor)
    return scales


def with_hidden_weights_of_fixed_size(model: FlowMo, scales: Mapping[str, float], factor: int) -> Mapping[str, float]:
    for side in (model.encoder, model.decoder):
        for _, linear, fan_in_grows, fan_out_grows in linears(side):
            if fan_in_grows and fan_out_grows:
                linear.weight.data *= math.sqrt(factor)
    return scales


def with_attention_over_the_root(model: FlowMo, scales: Mapping[str, float], _factor: int) -> Mapping[str, float]:
    """1 / sqrt(head_dim) in place of 8 / head_dim, as large at base."""
    for block in model.modules():
        if isinstance(block, TwoStreamBlock):
            head_dim = 8 / block.attention_scale
            block.attention_scale = 8 / BASE.encoder.head_dim * math.sqrt(BASE.encoder.head_dim / head_dim)
    return scales


REMOVALS: dict[Removal, set[str]] = {
    without_hidden_rates: {
        "encoder block 0 code",
        "encoder block 0 image",
        "encoder block 1 code",
        "decoder block 0 image_stream modulation",
        "decoder readout_modulation",
    },
    with_input_rates_scaled_too: {"encoder image_in", "encoder code_in", "decoder image_in", "decoder code_in"},
    without_readout_multiplier: {"encoder readout", "decoder readout"},
    without_initial_readouts: {"encoder readout", "decoder readout"},
    without_initial_biases: {"decoder block 0 image_stream modulation", "decoder readout_modulation"},
    with_hidden_weights_of_fixed_size: {"encoder block 0 code", "encoder block 0 image", "decoder time_embedding"},
    with_attention_over_the_root: {"encoder block 0 logits", "decoder block 0 logits", "decoder block 1 logits"},
}


@pytest.mark.parametrize("remove", REMOVALS, ids=lambda remove: remove.__name__)
def test_each_multiplier_is_missed(remove: Removal, images: Tensor, under_mup: dict[str, Slope]) -> None:
    def build_at(factor: int) -> Built:
        model, scales = build(widened(BASE, factor, True))
        return model, remove(model, scales, factor)

    found = slopes_of(build_at, images)
    assert REMOVALS[remove] <= off(found)
    for layer in REMOVALS[remove]:  # and by how much: a whole or a half power of the width, not just past the tolerance
        one, other = found[layer], under_mup[layer]
        moved = max(abs((one.size or 0) - (other.size or 0)), abs((one.change or 0) - (other.change or 0)))
        assert moved > 0.3, layer


def test_base_width_models_are_one_and_the_same(images: Tensor) -> None:
    """At factor 1 both parametrisations take the same steps, bit for bit."""
    ours, theirs = (
        coordinates(lambda factor: build(widened(BASE, factor, mup)), (1, 2), images, steps=3)  # noqa: B023
        for mup in (True, False)
    )
    assert [c for c in ours if c.factor == 1] == [c for c in theirs if c.factor == 1]
    assert [c for c in ours if c.factor == 2] != [c for c in theirs if c.factor == 2]


def test_what_cannot_be_checked(images: Tensor) -> None:
    with pytest.raises(ConfigError, match="two different widths"):
        coordinates(lambda factor: build(widened(BASE, factor, True)), (2, 2), images)
    with pytest.raises(ConfigError, match="at least 3 steps"):
        coordinates(lambda factor: build(widened(BASE, factor, True)), (1, 2), images, steps=2)
    with pytest.raises(TrainingError, match=r"no longer finite at step \d, width x\d; lower the learning rate"):
        coordinates(lambda factor: build(widened(BASE, factor, True)), (1, 2), images, learning_rate=1e30)
    assert not Slope("encoder readout", None, 0.0, 0.0, (0.0, 0.0)).holds()
