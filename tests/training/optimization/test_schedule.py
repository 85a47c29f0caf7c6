"""What changes over a run: learning rate, curriculum of p(t), decay of the moving average (A12, A16)."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import pairwise

import pytest

from flowmo.config import from_json, override, to_json
from flowmo.errors import ConfigError
from flowmo.stages.curriculum import code_dropout, noise_levels
from flowmo.training import NoiseLevelConfig, TrainConfig
from flowmo.training.optimization.schedule import ema_decay, learning_rate

RUN = TrainConfig(images=10_000, batch_size=10, learning_rate=2e-3, warmup_images=1_000, cooldown_images=2_000)


def test_learning_rate_rises_stays_and_falls() -> None:
    rates = [learning_rate(RUN, seen) for seen in range(0, 10_000, 10)]
    rise, flat, fall = rates[:99], rates[99:801], rates[801:]
    assert rise[0] == pytest.approx(2e-3 / 100)  # the first step already moves
    assert all(b > a for a, b in pairwise(rise))
    assert all(rate == 2e-3 for rate in flat)
    assert all(b < a for a, b in pairwise(fall))
    assert 0 < fall[-1] < 2e-5  # the last step still moves
    assert learning_rate(RUN, 10_000) == 0
    assert all(math.isclose(b - a, 2e-5) for a, b in pairwise(rise))


def test_the_published_schedule_is_constant() -> None:
    """No warm-up and no decay (A12)."""
    published = replace(RUN, warmup_images=0, cooldown_images=0)
    assert {learning_rate(published, seen) for seen in range(0, 10_000, 10)} == {2e-3}


@pytest.mark.parametrize("images", [32, 320, 3_200, 32_000, 1_000_000, 5_000_000])
def test_the_initial_weights_are_forgotten(images: int) -> None:
    """Their share of the moving average is the product of all decays: below a millionth whatever the run's length."""
    config = TrainConfig(images=images)
    share = math.prod(ema_decay(config, step) for step in range(images // config.batch_size))
    assert share < 1e-6


def test_averaging_is_long_where_the_run_is_long() -> None:
    """The average spans four per cent of the run's steps, once as many have passed."""
    config = TrainConfig(images=3_200_000)
    assert 1 / (1 - ema_decay(config, 90_000)) == pytest.approx(0.04 * 100_000)
    assert ema_decay(config, 0) < 0.2
    decays = [ema_decay(config, step) for step in range(0, 100_000, 100)]
    assert decays == sorted(decays)


def test_the_published_decay_can_be_had() -> None:
    """It would leave two thirds of the initial weights after 4,000 steps."""
    config = TrainConfig(ema_decay=0.9999)
    assert {ema_decay(config, step) for step in (0, 10, 100_000)} == {0.9999}
    assert math.prod(ema_decay(config, step) for step in range(4_000)) == pytest.approx(0.67, abs=0.01)


def test_curriculum_of_noise_levels() -> None:
    levels = NoiseLevelConfig(curriculum_mass=0.8, pure_noise_mass=0.2, curriculum_images=1_000, anneal_images=500)
    config = replace(RUN, noise_levels=levels, code_dropout=0.1)
    mass = {seen: noise_levels(config, seen).pure_noise_mass for seen in (0, 999, 1_000, 1_250, 1_500, 9_990)}
    assert mass == pytest.approx({0: 0.8, 999: 0.8, 1_000: 0.8, 1_250: 0.5, 1_500: 0.2, 9_990: 0.2})
    dropout = [code_dropout(config, seen) for seen in (0, 1_000, 1_250, 1_500, 9_990)]
    assert dropout == pytest.approx([0, 0, 0.05, 0.1, 0.1])


def test_without_a_curriculum_p_of_t_is_the_papers() -> None:
    for seen in (0, 500_000):
        levels = noise_levels(TrainConfig(), seen)
        assert (levels.uniform_mass, levels.location, levels.scale, levels.pure_noise_mass) == (0.1, 0.0, 1.0, 0.0)
        assert code_dropout(TrainConfig(), seen) == 0.1


def test_training_settings_round_trip_and_are_checked() -> None:
    config = override(TrainConfig(), ["losses.entropy=0.1", "noise_levels.scale=2", "ema_decay=0.9999"])
    assert from_json(TrainConfig, to_json(config)) == config
    for setting in ("images=0", "code_dropout=1", "learning_rate=0", "ema_horizon=0", "perceptual_share=2"):
        with pytest.raises(ConfigError, match=setting.partition("=")[0]):
            override(TrainConfig(), [setting])
    with pytest.raises(ConfigError, match=r"did you mean 'losses\.entropy'"):
        override(TrainConfig(), ["losses.entrpy=1"])
