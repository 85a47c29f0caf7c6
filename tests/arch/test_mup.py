"""muP (Section 4.1; B1): the same numbers as the ``mup`` package, nothing but PyTorch's default at base width, and no
state that a copy could lose."""

from __future__ import annotations

import copy
import io
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from flowmo.arch.mup import Readout, learning_rate_scales
from flowmo.config import FlowMoConfig, from_json, override, to_json
from flowmo.errors import ConfigError
from flowmo.presets import PRESETS, flowmo_mini_64, tiny
from flowmo.profiling.coordinate_check import widened
from flowmo.tokenizer import FlowMo
from flowmo.weights import load, save_model

CONFIGS = {
    "tiny": tiny(),
    "other options": replace(
        tiny(), modulation="shared", initial_latent="learned", prediction="clean", latent_positions="grid"
    ),
    "other widths": replace(tiny(), encoder=replace(tiny().encoder, width=32, heads=1)),
}


def on_meta(config: FlowMoConfig) -> FlowMo:
    with torch.device("meta"):
        return FlowMo(config)


def with_their_shapes(model: FlowMo, base: FlowMoConfig) -> FlowMo:
    """``mup``'s own view of which dimensions of which weights grow: those that differ between two widths."""
    from mup import set_base_shapes

    return set_base_shapes(model, on_meta(base), delta=on_meta(widened(base, 3, False)), do_assert=False)


@pytest.mark.parametrize("by", ["heads", "head-dim"])
@pytest.mark.parametrize("name", CONFIGS)
def test_learning_rates_are_those_of_mu_adam(name: str, by: str) -> None:
    """Of every parameter of a whole model, each classified by ``mup`` from its shapes."""
    from mup import MuAdam

    base = CONFIGS[name]
    ours = FlowMo(widened(base, 4, True, by))  # type: ignore[arg-type]
    scales = learning_rate_scales(ours)
    theirs = with_their_shapes(FlowMo(widened(base, 4, False, by)), base)  # type: ignore[arg-type]
    names = {id(p): name for name, p in theirs.named_parameters()}
    groups = MuAdam(theirs.parameters(), lr=1.0).param_groups
    expected = {names[id(p)]: group["lr"] for group in groups for p in group["params"]}
    assert scales == expected
    assert set(scales.values()) == {0.25, 1.0}


@pytest.mark.parametrize("name", CONFIGS)
def test_initial_weights_are_those_of_mup(name: str) -> None:
    """From the same default initialisation: each weight as ``mup`` rescales it where the readouts are its own."""
    from mup import MuReadout

    base = CONFIGS[name]
    torch.manual_seed(0)
    ours = dict(FlowMo(widened(base, 4, True)).named_parameters())
    torch.manual_seed(0)
    theirs = FlowMo(widened(base, 4, False))
    for side in (theirs.encoder, theirs.decoder):
        readout = MuReadout(side.readout.in_features, side.readout.out_features)
        readout.load_state_dict(side.readout.state_dict())
        side.readout = readout  # type: ignore[assignment]
    with_their_shapes(theirs, base)
    for parameter, expected in theirs.named_parameters():
        assert torch.allclose(ours[parameter], expected, rtol=1e-6, atol=0), parameter
    x = torch.randn(5, theirs.decoder.readout.in_features)
    model = FlowMo(widened(base, 4, True))
    model.load_state_dict(ours)
    assert torch.allclose(model.decoder.readout(x), theirs.decoder.readout(x), atol=1e-6)


@pytest.mark.parametrize("name", PRESETS)
def test_without_a_base_nothing_is_scaled(name: str) -> None:
    model = on_meta(PRESETS[name]())
    assert set(learning_rate_scales(model).values()) == {1.0}
    assert list(learning_rate_scales(model)) == [name for name, _ in model.named_parameters()]
    assert {module.multiplier for module in model.modules() if isinstance(module, Readout)} == {1}


def test_at_base_width_everything_is_the_default_bit_for_bit() -> None:
    image = torch.rand(2, 3, 32, 32) * 2 - 1
    found = []
    for config in (tiny(), widened(tiny(), 1, True)):
        torch.manual_seed(0)
        model = FlowMo(config)
        found.append([*model.state_dict().values(), model.encode(image), model.velocity(image, None, torch.ones(2))])
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))
    assert set(learning_rate_scales(model).values()) == {1.0}


def test_sides_follow_their_own_base() -> None:
    config = override(tiny(), ["encoder.base_width=32", "decoder.base_width=128"])
    scales = learning_rate_scales(FlowMo(config))
    assert scales["encoder.blocks.0.code_stream.qkv.weight"] == 0.5
    assert scales["decoder.blocks.0.code_stream.qkv.weight"] == 2.0
    assert scales["decoder.time_embedding.linear_out.weight"] == 2.0
    for name in ("time_embedding.linear_in", "image_in", "code_in", "readout"):
        assert scales[f"decoder.{name}.weight"] == 1.0
    assert {scale for name, scale in scales.items() if not name.endswith(".weight")} == {1.0}


class Through(nn.Module):
    """The decoder as the whole model is called in training, for what wants a module's forward."""

    def __init__(self, model: FlowMo) -> None:
        super().__init__()
        self.model = model

    def forward(self, image: Tensor) -> Tensor:
        return self.model.velocity(image, self.model.encode(image), torch.ones(len(image)))


def test_copies_lose_nothing(tmp_path: Path) -> None:
    """deepcopy, pickling, a meta model filled later, and a file: where ``mup`` loses its shapes."""
    model = FlowMo(widened(tiny(), 2, True)).eval()
    image = torch.rand(2, 3, 32, 32) * 2 - 1
    expected, scales = Through(model)(image), learning_rate_scales(model)
    buffer = io.BytesIO()
    torch.save(model, buffer)
    buffer.seek(0)
    empty = on_meta(model.config).to_empty(device="cpu")
    empty.load_state_dict(model.state_dict())
    empty.encoder.initial_latent.zero_()
    save_model(model, tmp_path / "model.safetensors", torch.float32)
    copies = [copy.deepcopy(model), torch.load(buffer, weights_only=False), empty, load(tmp_path / "model.safetensors")]
    for other in copies:
        assert learning_rate_scales(other) == scales
        assert torch.equal(Through(other.eval())(image), expected)
    assert scales["decoder.blocks.0.image_stream.mlp_in.weight"] == 0.5


def test_a_compiled_readout_still_divides() -> None:
    """Traced by ``torch.compile`` into a graph of its own (microsoft/mup#60)."""
    readout = FlowMo(widened(tiny(), 2, True)).decoder.readout
    x = torch.randn(3, 128)
    compiled = torch.compile(readout, backend="aot_eager", fullgraph=True)
    assert torch.allclose(compiled(x), readout(x), atol=1e-6)
    assert torch.allclose(readout(x), nn.functional.linear(x / 2, readout.weight, readout.bias), atol=1e-6)


def test_the_base_is_stored_with_the_model_and_tells_encoders_apart() -> None:
    """Two encoders of the same weights and other bases write other bits, so their token files must not mix; without a
    base the fingerprint is what it was before there were any."""
    config = widened(tiny(), 2, True)
    assert from_json(FlowMoConfig, to_json(config)) == config
    old = override(tiny(), [])
    stored = to_json(old).replace('"mlp_ratio": 4,\n    "base_width": null', '"mlp_ratio": 4')
    assert "base_width" not in stored
    assert from_json(FlowMoConfig, stored) == old
    model, plain = FlowMo(config), FlowMo(widened(tiny(), 2, False))
    plain.load_state_dict(model.state_dict())
    assert plain.fingerprint() != model.fingerprint()
    same = FlowMo(replace(plain.config, encoder=replace(plain.config.encoder, base_width=128)))
    same.load_state_dict(plain.state_dict())
    assert same.fingerprint() == plain.fingerprint()


@pytest.mark.parametrize("setting", ["encoder.base_width=0", "decoder.base_width=-64", "encoder.base_width=wide"])
def test_bases_that_cannot_be(setting: str) -> None:
    with pytest.raises(ConfigError, match="base_width must be"):
        override(flowmo_mini_64(), [setting])
