"""Settings of a training run that cannot work are refused by name, before anything is trained."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence

import pytest
import torch

from flowmo.config import override
from flowmo.errors import ConfigError
from flowmo.training import TrainConfig
from flowmo.training.configuration.run_config import fast_precision, product_seconds


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


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., None]]:
    """Pretend a machine: with a GPU or none, flags of its processor, and seconds of a product in bf16 and float32."""

    def pretend(gpu: bool, processor: dict[str, bool], seconds: list[float] | None) -> None:
        def timed(kinds: Sequence[torch.dtype]) -> list[float]:
            assert seconds is not None, "was timed"
            assert list(kinds) == [torch.bfloat16, torch.float32]
            return seconds

        monkeypatch.setattr("torch.cuda.is_available", lambda: gpu)
        monkeypatch.setattr("torch.cpu.get_capabilities", lambda: processor, raising=False)
        monkeypatch.setattr("flowmo.training.configuration.run_config.product_seconds", timed)
        fast_precision.cache_clear()

    yield pretend
    fast_precision.cache_clear()


@pytest.mark.parametrize(
    ("gpu", "processor", "seconds", "expected"),
    [
        (True, {}, None, "bf16"),
        (False, {"avx512_bf16": True, "amx_bf16": False}, [1.0, 2.0], "bf16"),
        (False, {"avx512_bf16": True, "amx_bf16": False}, [2.0, 1.0], "fp32"),
        (False, {"avx512_bf16": False, "amx_bf16": True}, [0.1, 1.0], "bf16"),
        (False, {"avx512_bf16": False, "amx_bf16": True}, [0.95, 1.0], "fp32"),
        (False, {"avx2": True, "avx512_bf16": False, "amx_bf16": False}, None, "fp32"),
    ],
)
def test_the_usual_precision_is_one_that_the_device_multiplies_fast(
    machine: Callable[..., None], gpu: bool, processor: dict[str, bool], seconds: list[float] | None, expected: str
) -> None:
    machine(gpu, processor, seconds)
    assert TrainConfig().chosen_precision == expected


def test_the_usual_precision_is_measured_once_a_process(machine: Callable[..., None]) -> None:
    machine(False, {"amx_bf16": True}, [0.1, 1.0])
    assert TrainConfig().chosen_precision == "bf16"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            "flowmo.training.configuration.run_config.product_seconds", lambda kinds: pytest.fail("was timed again")
        )
        assert TrainConfig().chosen_precision == "bf16"


def test_products_are_timed_by_turns_and_take_little_time() -> None:
    start = time.perf_counter()
    slow, fast = product_seconds((torch.float64, torch.float32), repeats=20)
    assert 0 < fast < slow, "a product in double precision takes twice as long everywhere"
    assert time.perf_counter() - start < 5
