"""Settings of a training run that cannot work are refused by name, before anything is trained."""

from __future__ import annotations

import pytest

from flowmo.config import override
from flowmo.errors import ConfigError
from flowmo.training import TrainConfig


@pytest.mark.parametrize(
    "setting",
    [
        "images=0",
        "learning_rate=0",
        "learning_rate=-1",
        "learning_rate=NaN",
        "learning_rate=inf",
        "betas=[1.5,0.9]",
        "warmup_images=-5",
        "cooldown_images=-1",
        "checkpoint_minutes=-1",
        "gradient_clip=0",
        "ema_decay=1",
        "ema_horizon=2",
        "code_dropout=1",
        "seed=-1",
        "noise_levels.uniform_mass=7",
        "noise_levels.anneal_images=-1",
        "losses.perceptual=-0.1",
        "losses.entropy=NaN",
    ],
)
def test_values_out_of_range_are_named(setting: str) -> None:
    with pytest.raises(ConfigError, match=setting.partition("=")[0]):
        override(TrainConfig(), [setting])


def test_a_date_will_do_as_seed() -> None:
    assert override(TrainConfig(), ["seed=20261122"]).seed == 20261122


@pytest.mark.parametrize(
    ("gpu", "processor", "expected"),
    [
        (True, {}, "bf16"),
        (False, {"avx512_bf16": True, "amx_bf16": False}, "bf16"),
        (False, {"avx512_bf16": False, "amx_bf16": True}, "bf16"),
        (False, {"avx2": True, "avx512_bf16": False, "amx_bf16": False}, "fp32"),
    ],
)
def test_the_usual_precision_is_one_that_the_device_multiplies(
    monkeypatch: pytest.MonkeyPatch, gpu: bool, processor: dict[str, bool], expected: str
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: gpu)
    monkeypatch.setattr("torch.cpu.get_capabilities", lambda: processor, raising=False)
    assert TrainConfig().precision == expected
