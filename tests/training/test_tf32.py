"""TF32 for products of float32 (``tf32``): on while a run lasts, and as it was afterwards, however the run ends."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from run_support import command

import flowmo
from flowmo.cli.main import main
from flowmo.data import open_images
from flowmo.errors import TrainingError
from flowmo.presets import tiny
from flowmo.profiling.training_speed import measure_updates
from flowmo.stages import LossWeights, ModeMatching
from flowmo.training import TokenizerPlan, TrainConfig, TrainOptions, World, generator, train
from flowmo.training.configuration import recipes
from flowmo.training.short import measured_speed

QUICK = TrainConfig(
    images=16, batch_size=8, warmup_images=0, cooldown_images=0, precision="fp32", workers=0, log_steps=1,
    losses=LossWeights(perceptual=0),
)  # fmt: skip
QUIET = TrainOptions(say=lambda _: None)
State = tuple[str, bool]


def state() -> State:
    return torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32


@pytest.fixture
def before() -> Iterator[State]:
    """A state of the process that neither a run nor PyTorch chose."""
    was = state()
    torch.set_float32_matmul_precision("medium")
    torch.backends.cudnn.allow_tf32 = False
    yield state()
    torch.set_float32_matmul_precision(was[0])
    torch.backends.cudnn.allow_tf32 = was[1]


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> list[State]:
    """The state in each forward pass of Stage 1A."""
    found: list[State] = []
    forward = ModeMatching.forward

    def spied(self: ModeMatching, *arguments: Any) -> Any:
        found.append(state())
        return forward(self, *arguments)

    monkeypatch.setattr(ModeMatching, "forward", spied)
    return found


def plan_of(config: TrainConfig) -> TokenizerPlan:
    return TokenizerPlan(config, lambda: flowmo.FlowMo(tiny()))


@pytest.mark.parametrize(("tf32", "within"), [(True, ("high", True)), (False, ("medium", False))])
def test_it_is_on_during_a_run_and_put_back_after_it(
    tf32: bool, within: State, data: Path, tmp_path: Path, before: State, seen: list[State]
) -> None:
    source = open_images(str(data))
    train(plan_of(replace(QUICK, tf32=tf32)), source, tmp_path, QUIET)
    assert seen == [within] * 2
    assert state() == before


def test_it_is_put_back_after_a_run_that_fails(
    data: Path, tmp_path: Path, before: State, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(self: ModeMatching, *_: Any) -> Any:
        assert state() == ("high", True)
        raise TrainingError("no loss today")

    monkeypatch.setattr(ModeMatching, "forward", broken)
    with pytest.raises(TrainingError, match="no loss today"):
        train(plan_of(replace(QUICK, tf32=True)), open_images(str(data)), tmp_path, QUIET)
    assert state() == before


def test_speed_is_measured_as_the_run_will_be(data: Path, before: State, seen: list[State]) -> None:
    """By ``bench train``, and before a short run."""
    config, source = replace(QUICK, tf32=True), open_images(str(data))
    plan = plan_of(config)
    with plan.loader(source, plan.seeded_model(), config, World(), 0) as loader:
        batch = next(iter(loader))
    measure_updates(tiny(), config, torch.device("cpu"), batch, None, repeats=1)
    assert seen == [("high", True)] * 3
    measured_speed(plan, source, World(), 0.0)
    assert set(seen) == {("high", True)}
    assert len(seen) >= 5
    assert state() == before


def test_a_run_goes_on_without_it_and_from_before_there_was_such_a_setting(
    data: Path, tmp_path: Path, seen: list[State]
) -> None:
    """Unlike precision, which would be another run."""

    def go_on(images: int, **settings: object) -> int:
        return main(command(data, tmp_path / "run", images=images, cooldown_images=0, **settings))

    assert go_on(16, tf32="true") == 0
    assert go_on(32, tf32="false") == 0
    newest = sorted((tmp_path / "run").glob("checkpoint-*"))[-1]
    about = json.loads((newest / "checkpoint.json").read_text())
    assert about["train_config"].pop("tf32") is False
    del about["sha256"]
    about["sha256"] = hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()
    (newest / "checkpoint.json").write_text(json.dumps(about))
    assert go_on(48, tf32="true") == 0
    assert [found[0] == "high" for found in dict.fromkeys(seen)] == [True, False]
    assert seen[-1] == seen[0]
    assert go_on(64, precision="bf16") != 0


def test_the_published_recipes_turn_it_on() -> None:
    everyone = [recipe("flowmo-lo") for recipe in recipes.RECIPES.values()]
    assert all(config.tf32 for config in [*everyone, recipes.published_post_training(), generator.published()])
    assert not TrainConfig().tf32
