"""Decoding as TiTok does it, in closed form."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from flowmo.errors import ConfigError
from flowmo.generation import NO_CLASS, DecodeSettings, decode

LENGTH, VOCABULARY = 16, 5


def biased(tokens: Tensor, labels: Tensor, mask: Tensor) -> Tensor:
    """The same distribution at every place: p(v) = (v + 1) / 15."""
    return torch.log(torch.arange(1.0, VOCABULARY + 1)).expand(*tokens.shape, VOCABULARY)


def swayed(tokens: Tensor, labels: Tensor, mask: Tensor) -> Tensor:
    """c - u is v for each value v, and u is -v^2 / 2: of the guided logits w v - v^2 / 2, that of v = w is highest."""
    values = torch.arange(float(VOCABULARY))
    without = (-values.square() / 2).expand(*tokens.shape, VOCABULARY)
    return without + (labels != NO_CLASS)[:, None, None] * values


@pytest.mark.parametrize("scale", [0, 1, 2, 3])
def test_its_guidance_is_one_more_than_ours(scale: int) -> None:
    titok = DecodeSettings(4, choice_noise=0, guidance_scale=scale, convention="titok")
    ours = DecodeSettings(4, temperature=0, final_temperature=0, choice_noise=0, guidance_scale=1 + scale)
    label = torch.tensor([0])
    assert decode(swayed, label, LENGTH, titok, [0]).unique().tolist() == [1 + scale]
    assert decode(swayed, label, LENGTH, ours, [0]).unique().tolist() == [1 + scale]


def test_tokens_are_drawn_by_noise_on_logits_over_the_temperature() -> None:
    """argmax of l / T + a G is a draw from softmax(l / (T a)); at the first of two steps T = 0.9 and a = 0.7."""
    first: list[Tensor] = []
    settings = DecodeSettings(2, temperature=1.3, choice_noise=1.4, guidance_scale=0, convention="titok")
    labels = torch.zeros(800, dtype=torch.int64)
    decode(biased, labels, LENGTH, settings, range(800), lambda tokens, mask: first.append(tokens))
    expected = (biased(first[0][:1, :1], labels, labels)[0, 0] / (0.9 * 0.7)).softmax(0)
    found = first[0].flatten().bincount(minlength=VOCABULARY) / first[0].numel()
    error = (expected * (1 - expected) / first[0].numel()).sqrt()
    assert float(((found - expected) / error).abs().max()) < 4.5


def test_the_last_step_has_no_noise_and_a_seed_decides() -> None:
    settings = DecodeSettings(1, temperature=1.3, choice_noise=50, guidance_scale=0, convention="titok")
    one = torch.zeros(1, dtype=torch.int64)
    assert decode(biased, one, LENGTH, settings, [3]).unique().tolist() == [VOCABULARY - 1]
    settings = DecodeSettings(8, temperature=1.3, choice_noise=2.8, guidance_scale=0, convention="titok")
    alone, other = (decode(biased, one, LENGTH, settings, [seed]) for seed in (3, 4))
    assert not alone.equal(other)
    assert decode(biased, one.repeat(2), LENGTH, settings, [4, 3])[1:].equal(alone)


def test_settings_that_cannot_be_are_refused() -> None:
    with pytest.raises(ConfigError, match="convention"):
        DecodeSettings(convention="muse")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="above 0"):
        DecodeSettings(final_temperature=0, convention="titok")
