"""The ablations of Table 4 behind the same interface: FSQ and a continuous latent (F4, F6)."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from flowmo.config import FlowMoConfig, QuantizerConfig, override
from flowmo.errors import ConfigError
from flowmo.presets import tiny
from flowmo.quantize import KINDS, make_quantizer
from flowmo.quantize.continuous import quantize_continuous
from flowmo.quantize.fsq import fsq_code_from_tokens, quantize_fsq

level_lists = st.lists(st.integers(2, 9), min_size=1, max_size=4).map(tuple)


@pytest.mark.parametrize("kind", KINDS)
def test_a_quantizer_says_how_wide_its_code_is_and_how_many_values_a_channel_takes(kind: str) -> None:
    """As its configuration does, which is asked before there is a quantizer, and as its codes are."""
    bits = QuantizerConfig().level_bits if kind == "fsq" else tiny().bits_per_group
    quantizer_config = replace(tiny().quantizer, kind=kind)
    config = replace(tiny(), quantizer=quantizer_config, bits_per_group=bits, bits_per_token=2 * bits)
    quantizer = make_quantizer(config)
    assert quantizer.latent_dim == config.latent_dim
    latent = 2 * torch.randn(64, config.num_tokens, quantizer.latent_dim, generator=torch.Generator().manual_seed(0))
    code = quantizer(latent).code
    assert code.shape == latent.shape
    assert bool(quantizer.levels) == quantizer.has_tokens
    assert quantizer.has_bits == (set(quantizer.levels) == {2})
    if quantizer.has_tokens:
        assert len(quantizer.levels) * config.num_groups == quantizer.latent_dim
        assert math.prod(quantizer.levels) <= 2**config.bits_per_group
        values = [len(channel.mul(1e4).round().unique()) for channel in code.flatten(0, 1).T]
        assert sorted(values) == sorted(quantizer.levels * config.num_groups)


@given(level_lists, st.integers(1, 3), st.integers(0, 10**6))
def test_fsq_tokens_decode_to_the_code(levels: tuple[int, ...], groups: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    latent = 3 * torch.randn(2, 4, groups * len(levels), generator=generator)
    quantized = quantize_fsq(latent, levels)
    assert quantized.tokens is not None
    assert quantized.tokens.shape == (2, 4, groups)
    assert 0 <= int(quantized.tokens.min()) <= int(quantized.tokens.max()) < math.prod(levels)
    assert torch.allclose(fsq_code_from_tokens(quantized.tokens, levels), quantized.code, atol=1e-6)


@given(level_lists)
def test_fsq_codes_and_tokens_are_one_to_one(levels: tuple[int, ...]) -> None:
    tokens = torch.arange(math.prod(levels)).reshape(1, -1, 1)
    code = fsq_code_from_tokens(tokens, levels)
    assert len(code[0].unique(dim=0)) == math.prod(levels)
    assert float(code.abs().max()) == 1
    latent = torch.atanh(code.double() * 0.98).float()  # a little inside, as tanh never reaches 1
    again = quantize_fsq(latent, levels).tokens
    assert again is not None
    assert torch.equal(again, tokens)


@pytest.mark.parametrize("levels", [2, 3, 5, 8])
def test_every_level_is_reached_and_none_beyond(levels: int) -> None:
    latent = torch.linspace(-50, 50, 200_001)[None, :, None]
    quantized = quantize_fsq(latent, (levels,))
    assert quantized.tokens is not None
    assert quantized.tokens.unique().tolist() == list(range(levels))
    assert (quantized.tokens.flatten().diff() >= 0).all()
    assert torch.allclose(quantized.code[0, [0, -1], 0], torch.tensor([-1.0, 1.0]), atol=1e-5)


def test_fsq_order_of_channels() -> None:
    """The first channel of a group is the least significant; a group's channels are neighbours."""
    code = fsq_code_from_tokens(torch.tensor([[[1, 4 * 2]]]), (4, 3))
    assert torch.allclose(code, torch.tensor([[[1 / 3 * 2 - 1, -1, -1, 1]]]))


def test_fsq_gradient_is_that_of_the_bounded_latent() -> None:
    latent = torch.randn(2, 3, 6, requires_grad=True)
    quantize_fsq(latent, (8, 8, 8)).code.sum().backward()
    assert latent.grad is not None
    slope = (8 - 1e-3) / 7  # from (-1/2, 7.5) of the levels to their range of [-1, 1]
    assert torch.allclose(latent.grad, slope * (1 - latent.tanh() ** 2), atol=1e-5)


def test_fsq_refuses_integers_that_no_latent_gives() -> None:
    """Seven bits hold 128 integers, five levels cubed only 125."""
    assert fsq_code_from_tokens(torch.tensor([[[124]]]), (5, 5, 5)).tolist() == [[[1.0, 1.0, 1.0]]]
    for wrong in (125, 127, -1):
        with pytest.raises(ConfigError, match="between 0 and 124"):
            fsq_code_from_tokens(torch.tensor([[[0], [wrong]]]), (5, 5, 5))
    assert fsq_code_from_tokens(torch.zeros(0, 3, 2, dtype=torch.int64), (5, 5, 5)).shape == (0, 3, 6)


def test_continuous_latent_is_normalised_token_by_token() -> None:
    latent = 7 * torch.randn(2, 5, 18) + 3
    quantized = quantize_continuous(latent)
    assert quantized.tokens is None
    assert torch.allclose(quantized.code.mean(-1), torch.zeros(2, 5), atol=1e-5)
    assert torch.allclose(quantized.code.var(-1, correction=0), torch.ones(2, 5), atol=1e-4)
    assert torch.allclose(quantize_continuous(latent[:, 2:3]).code, quantized.code[:, 2:3])
    assert all(value == 0 for value in quantized.losses)


def configured(kind: str, **settings: object) -> FlowMoConfig:
    return replace(tiny(), quantizer=QuantizerConfig(kind=kind, **settings))  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", ["lfq", "fsq", "bsq", "continuous"])
def test_one_interface(kind: str) -> None:
    config = configured(kind)
    latent = torch.randn(2, 16, config.latent_dim)
    quantized = make_quantizer(config)(latent)
    assert quantized.code.shape == latent.shape
    if kind == "continuous":
        assert quantized.tokens is None
        with pytest.raises(ConfigError, match="no tokens"):
            make_quantizer(config).decode(torch.zeros(2, 16, 2, dtype=torch.int64))
    else:
        assert quantized.tokens is not None
        assert quantized.tokens.shape == (2, 16, config.num_groups)
        assert torch.allclose(make_quantizer(config).decode(quantized.tokens), quantized.code, atol=1e-6)


def test_settings_reach_the_quantizer() -> None:
    latent = torch.randn(2, 16, 18)
    cold, warm = (make_quantizer(configured("lfq", temperature=t))(latent).losses.sample_entropy for t in (0.01, 1.0))
    assert cold < warm
    bounded = make_quantizer(configured("lfq", tanh_bound=True))(latent).losses.commitment
    assert not torch.equal(bounded, make_quantizer(configured("lfq"))(latent).losses.commitment)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (["quantizer.kind=vq"], "must be one of lfq, fsq, bsq, continuous"),
        (["quantizer.temperature=0"], "temperature must be positive"),
        (["quantizer.kind=fsq", "quantizer.levels=[8,8]"], "need 6 bits a group, but bits_per_group is 9"),
        (["quantizer.levels=[8,1]"], "at least 2"),
        (["quantizer.levels=[]"], "at least 2"),
        (["bits_per_group=7"], "bits_per_token 18 is not a multiple of bits_per_group 7"),
        (["quantizer.tanh=true"], "did you mean 'quantizer.tanh_bound'"),
    ],
)
def test_configurations_that_cannot_be(settings: list[str], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        override(tiny(), settings)


def test_continuous_latent_over_the_whole_image() -> None:
    """As DiTo: one mean and variance an image, so that tokens keep their sizes beside each other (F6)."""
    latent = torch.randn(2, 5, 18) * torch.arange(1, 6)[:, None] + 3
    code = quantize_continuous(latent, "latent").code
    assert torch.allclose(code.mean((1, 2)), torch.zeros(2), atol=1e-5)
    assert torch.allclose(code.var((1, 2), correction=0), torch.ones(2), atol=1e-4)
    assert float(code[:, 4].std()) > 2 * float(code[:, 0].std())
    assert torch.equal(make_quantizer(configured("continuous", normalize="latent"))(latent).code, code)
    assert torch.allclose(code[:1], quantize_continuous(latent[:1], "latent").code)  # by itself
