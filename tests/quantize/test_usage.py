"""Use of the code: entropies of tokens made to have known ones."""

from __future__ import annotations

import math

import pytest
import torch

from flowmo.errors import ConfigError
from flowmo.quantize.tokens import Tokens
from flowmo.quantize.usage import bit_usage, code_usage


def tokens(indices: torch.Tensor, bits: int) -> Tokens:
    return Tokens(indices, bits, (8, 8))


def test_every_code_equally_often() -> None:
    """Group 0 takes all 16 codes, group 1 only the four whose upper bits are 0, group 2 a single one."""
    counter = torch.arange(64).reshape(16, 4)  # 16 images of 4 tokens
    usage = code_usage(tokens(torch.stack([counter % 16, counter // 16, torch.full_like(counter, 9)], 2), 4))
    assert usage.images == 16
    assert usage.entropy == pytest.approx((4, 2, 0))
    assert usage.perplexity == pytest.approx((16, 4, 1))
    assert usage.used == pytest.approx((1, 0.25, 1 / 16))


def test_bits_are_counted_place_by_place_over_images() -> None:
    """One token of two bits: the lower is set in a quarter of the images, the upper in all of them."""
    usage = code_usage(tokens(torch.tensor([3, 2, 2, 2]).reshape(4, 1, 1), 2))
    expected = -(0.25 * math.log2(0.25) + 0.75 * math.log2(0.75))
    assert usage.bits.entropy == pytest.approx(expected / 2)
    assert usage.bits.never_flip == 0.5
    assert usage.entropy == pytest.approx((expected,))


def test_random_tokens_use_nearly_everything() -> None:
    generator = torch.Generator().manual_seed(0)
    usage = code_usage(tokens(torch.randint(512, (300, 64, 2), generator=generator), 9))
    assert all(8.95 < entropy <= 9 for entropy in usage.entropy)
    assert usage.used == (1, 1)
    assert 0.995 < usage.bits.entropy <= 1
    assert usage.bits.never_flip == 0


def test_no_images_have_no_usage() -> None:
    with pytest.raises(ConfigError, match="at least one image"):
        code_usage(tokens(torch.zeros(0, 4, 2, dtype=torch.long), 9))


def test_use_of_the_bits_from_shares() -> None:
    """Closed forms: never set, always set, half, a quarter."""
    usage = bit_usage(torch.tensor([[0.0, 1.0], [0.5, 0.25]]))
    assert usage.never_flip == 0.5
    assert usage.entropy == pytest.approx((1 + 0.8112781) / 4)
