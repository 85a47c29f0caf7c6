"""Random rates in training: shares as asked for, everything from the generator, masks of the first bits."""

from __future__ import annotations

import pytest
import torch

from flowmo.errors import ConfigError
from flowmo.stages.rates import RateConfig, draw_kept_bits


def test_shares_and_range() -> None:
    kept = draw_kept_bits(RateConfig(0.4, 0.25, 18, 9), 20_000, 56, torch.Generator().manual_seed(0))
    assert (kept == 56).float().mean() == pytest.approx(0.4, abs=0.02)
    assert (kept == 18).float().mean() == pytest.approx(0.25 + 0.35 / 18 / 1.85, abs=0.02)
    assert (int(kept.min()), int(kept.max())) == (9, 56)
    others = kept[(kept != 56) & (kept != 18)].float()
    assert others.log().mean() == pytest.approx(3.1, abs=0.1)  # uniform in the logarithm from 9 to 56


def test_a_model_of_few_bits_keeps_at_most_its_own() -> None:
    kept = draw_kept_bits(RateConfig(0.4, 0.25), 200, 6, torch.Generator().manual_seed(0))
    assert kept.tolist() == [6] * 200


def test_the_generator_decides() -> None:
    first, again = (draw_kept_bits(RateConfig(0.4, 0.25), 50, 56, torch.Generator().manual_seed(3)) for _ in range(2))
    assert torch.equal(first, again)


def test_shares_beyond_one_are_refused() -> None:
    with pytest.raises(ConfigError, match="at most 1 together"):
        RateConfig(full_share=0.8, often_share=0.4)
