"""What a program around the verbs has set up: autocast, another default dtype, weights in bfloat16."""

from __future__ import annotations

import copy
import warnings
from pathlib import Path

import pytest
import torch
from torch import Tensor

from flowmo.config import FlowMoConfig
from flowmo.flow import seeded_noise
from flowmo.generation import DecodeSettings, Generator, generate
from flowmo.generation.config import GeneratorConfig, TokenLayout
from flowmo.presets import tiny
from flowmo.tokenizer import FlowMo
from flowmo.weights import load_model, save_model


@pytest.fixture
def model(lively: object) -> FlowMo:
    return lively(FlowMo(tiny()))  # type: ignore[operator, no-any-return]


def images(config: FlowMoConfig, count: int = 3) -> Tensor:
    return torch.rand(count, 3, config.image_size, config.image_size) * 2 - 1


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_around_the_verbs_changes_nothing(model: FlowMo, dtype: torch.dtype) -> None:
    x = images(model.config)
    tokens = model.tokenize(x)
    again = model.detokenize(tokens, num_steps=2)
    with warnings.catch_warnings(), torch.autocast("cpu", dtype):
        warnings.simplefilter("error")
        assert torch.equal(model.tokenize(x).indices, tokens.indices)
        assert torch.equal(model.detokenize(tokens, num_steps=2), again)
        assert torch.equal(model.reconstruct(x, num_steps=2), again)


def test_autocast_around_a_generator_changes_nothing() -> None:
    generator = Generator(GeneratorConfig(32, 2, 2, 3, tokens=TokenLayout())).eval()
    settings = DecodeSettings(num_steps=2)
    plain = [tokens.indices for tokens in generate(generator, [0, 1], settings, [0, 1])]
    with torch.autocast("cpu", torch.bfloat16):
        cast = [tokens.indices for tokens in generate(generator, [0, 1], settings, [0, 1])]
    assert all(map(torch.equal, plain, cast))


def test_a_default_dtype_of_float64_changes_nothing(model: FlowMo, tmp_path: Path) -> None:
    save_model(model, tmp_path / "m.safetensors", torch.float32)
    x = images(model.config)
    noise, again = seeded_noise([3, 4], 2, (3, 8, 8)), model.reconstruct(x, num_steps=2, seed=[1, 2, 3])
    torch.set_default_dtype(torch.float64)
    try:
        assert torch.equal(seeded_noise([3, 4], 2, (3, 8, 8)), noise)
        assert torch.equal(model.reconstruct(x, num_steps=2, seed=[1, 2, 3]), again)
        loaded = load_model(tmp_path / "m.safetensors")
        assert torch.equal(loaded.reconstruct(x, num_steps=2, seed=[1, 2, 3]), again)
        assert loaded.fingerprint() == model.fingerprint()
    finally:
        torch.set_default_dtype(torch.float32)


def test_weights_in_bfloat16_keep_their_fingerprint(model: FlowMo) -> None:
    own = model.fingerprint()
    for cast in (
        copy.deepcopy(model).prepare(dtype=torch.bfloat16),
        copy.deepcopy(model).to(torch.bfloat16),
        copy.deepcopy(model).bfloat16().float().bfloat16(),
        copy.deepcopy(copy.deepcopy(model).bfloat16()),
        copy.deepcopy(model).half(),
        copy.deepcopy(model).double(),
    ):
        assert cast.fingerprint() == own


def test_other_weights_after_the_cast_have_another_one(model: FlowMo) -> None:
    own = model.fingerprint()
    model.prepare(dtype=torch.bfloat16)
    with torch.no_grad():
        model.encoder.readout.weight[0, 0] += 1
    assert model.fingerprint() != own


def test_speed_in_bfloat16_is_that_of_weights_in_bfloat16(model: FlowMo, monkeypatch: pytest.MonkeyPatch) -> None:
    from flowmo.profiling.speed import time_decode, time_encode

    seen = []
    whole = FlowMo.tokenize
    monkeypatch.setattr(
        FlowMo, "tokenize", lambda self, x: (seen.append(self.encoder.readout.weight.dtype), whole(self, x))[1]
    )
    time_encode(model, images(model.config), "bf16", repeats=1)
    list(time_decode(model, images(model.config), [(1, 1.0)], "bf16", repeats=1))
    assert set(seen) == {torch.bfloat16}
    assert model.encoder.readout.weight.dtype == torch.float32
