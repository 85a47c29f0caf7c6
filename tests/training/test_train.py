"""``flowmo.training.train``, as a notebook calls it: no command, no arguments, and what it says while it runs."""

from __future__ import annotations

import gc
import json
import math
import re
import time
import weakref
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

import flowmo
from flowmo.data import open_images
from flowmo.errors import ConfigError, TrainingError
from flowmo.presets import tiny
from flowmo.stages import LossWeights
from flowmo.training import Run, TokenizerPlan, TrainConfig, TrainOptions, World, session, train
from flowmo.training.monitoring.validation import SizedValidation, Validator
from flowmo.weights import load_model

QUICK = TrainConfig(
    images=32, batch_size=8, warmup_images=0, cooldown_images=0, precision="fp32", workers=0, log_steps=1,
    losses=LossWeights(perceptual=0),
)  # fmt: skip


def plan_of(config: TrainConfig = QUICK, **more: Any) -> TokenizerPlan:
    return TokenizerPlan(config, lambda: flowmo.FlowMo(tiny()), **more)


def test_a_notebook_trains_validates_and_goes_on(data: Path, tmp_path: Path) -> None:
    """In two calls: the second goes on where the first stopped, to the weights of a run in one call."""
    source, said, seen = open_images(str(data)), [], []

    def validation(model: nn.Module, world: World) -> Callable[[Any, int], dict[str, float]]:
        def measure(ema: flowmo.FlowMo, images: int) -> dict[str, float]:
            assert not ema.training
            assert torch.is_grad_enabled() is False
            assert ema.decoder.readout.weight.dtype == torch.float32
            seen.append(images)
            return {"norm": float(ema.decoder.readout.weight.norm())}

        return measure

    plan = plan_of(validation=validation, about={"of": "a notebook"})
    first = train(plan, source, str(tmp_path / "run"), TrainOptions(seconds=0, say=said.append))
    assert (first.finished, first.images_seen, first.reason) == (False, 8, "time limit")
    assert said[-1].startswith("time limit after 8 images of 32 (25%); ")
    assert said[-1].endswith("with --cooldown 8 added, it ends well over that many images more.")
    last = train(plan, source, tmp_path / "run", TrainOptions(say=said.append))
    assert (last.finished, last.images_seen, seen) == (True, 32, [32])
    assert "resuming at 8 images" in said
    train(plan, source, tmp_path / "whole", TrainOptions(say=lambda _: None))
    ours, theirs = (load_model(tmp_path / name / "model.safetensors") for name in ("run", "whole"))
    assert all(torch.equal(ours.get_parameter(n), p) for n, p in theirs.named_parameters())


def test_a_run_keeps_the_precision_it_began_with(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where none is asked for, the machine of the first call decides; another one later changes nothing."""
    source, said, folder = open_images(str(data)), [], tmp_path / "run"
    plan = plan_of(replace(QUICK, precision="auto"))
    for begun in ("bf16", "fp32"):
        monkeypatch.setattr("flowmo.training.configuration.run_config.fast_precision", lambda begun=begun: begun)
        train(plan, source, folder, TrainOptions(seconds=0, say=said.append))
        assert json.loads((folder / "config.json").read_text())["train"]["precision"] == "bf16"
    assert "resuming at 8 images" in said
    with pytest.raises(TrainingError, match="precision: bf16 there"):
        train(plan_of(QUICK), source, folder, TrainOptions(say=said.append))


def test_validation_says_what_it_costs(data: Path, tmp_path: Path) -> None:
    """Every validation's seconds are in the log; one note says that they are more than 3 % of the run, and the way
    out. A run whose validation is cheap says nothing."""
    for name, wait in (("slow", 0.5), ("fast", 0.0)):
        said: list[str] = []

        def validation(model: nn.Module, world: World, wait: float = wait) -> Callable[[Any, int], dict]:
            return lambda ema, images: (time.sleep(wait), {"number": 1.0})[1]

        config = TrainConfig(**(vars(QUICK) | {"validate_every": 8 if wait else 1000}))
        train(
            plan_of(config, validation=validation),
            open_images(str(data)),
            tmp_path / name,
            TrainOptions(say=said.append),
        )
        lines = [json.loads(line) for line in (tmp_path / name / "log.jsonl").read_text().splitlines()]
        seconds = [line["validation_seconds"] for line in lines if "number" in line]
        assert len(seconds) == (4 if wait else 1)
        assert min(seconds) >= wait
        notes = [line for line in said if line.startswith("note: validation takes")]
        assert len(notes) == (1 if wait else 0)
        assert all("validate_every=" in note for note in notes)


def sized(tried: list[tuple[int, float]], wait: float, folder: Path) -> SizedValidation:
    """A validation that takes ``wait`` seconds an image; it writes down on how many images it was called."""

    def make(model: nn.Module, world: World, count: int, pictures: Path) -> Callable[[Any, int], dict[str, float]]:
        assert (pictures == folder) == (count == 10)  # a trial leaves no sheet in the run's folder

        def measure(ema: flowmo.FlowMo, images: int) -> dict[str, float]:
            assert not ema.training
            time.sleep(wait * count)
            tried.append((count, images))
            return {"number": 1.0}

        return measure

    return SizedValidation(make, 10, folder, fewest=2)


@pytest.mark.parametrize(
    ("limit", "wait", "measured"),
    [
        (600.0, 0.0, [(1, 0), (2, 0), (10, 16), (10, 32)]),
        (20.0, 0.2, [(1, 0)]),  # 10 images take 2 s, more than 7 % of 20 s
        (math.inf, 0.01, [(10, 16), (10, 32)]),  # without a limit nothing is tried
        (0.0, 0.0, []),
    ],
)
def test_validation_is_left_out_where_it_takes_too_much_of_the_time_limit(
    data: Path, tmp_path: Path, limit: float, wait: float, measured: list[tuple[int, float]]
) -> None:
    tried: list[tuple[int, float]] = []
    said: list[str] = []
    config = TrainConfig(**(vars(QUICK) | {"validate_every": 16}))
    plan = plan_of(config, validation=sized(tried, wait, tmp_path / "sheets"))
    outcome = train(plan, open_images(str(data)), tmp_path / "run", TrainOptions(seconds=limit, say=said.append))
    assert outcome.finished == (limit > 0)
    assert tried == measured
    left_out = [line for line in said if line.startswith("validation is left out: of 10 images it takes ")]
    assert len(left_out) == (len(measured) < 2)
    assert all("7% of what is left" in line for line in left_out)
    assert (tmp_path / "run" / "model.safetensors").is_file()


def test_a_validation_that_would_end_after_the_time_limit_is_left_out(tmp_path: Path) -> None:
    said: list[str] = []
    log = SimpleNamespace(say=said.append)
    parts: list[Any] = [tmp_path, QUICK, None, None, World(), log, lambda model, images: {}]
    assert Validator(*parts, longest=1e6).in_time()
    assert Validator(*parts, longest=5.0, deadline=time.monotonic() + 60).in_time()
    assert not said
    assert not Validator(*parts, longest=90.0, deadline=time.monotonic() + 60).in_time()
    assert said == ["validation is left out here: it takes 90.0 s, and the time limit is near"]


def test_a_run_stops_before_an_update_that_would_end_after_its_limit(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An update takes all of the time that there is: the second one is the last."""
    monkeypatch.setattr(Run, "took", property(lambda self: 1e6 * self.state.step, lambda self, seconds: None))
    options = TrainOptions(seconds=1e6, say=lambda _: None)
    outcome = train(plan_of(), open_images(str(data)), tmp_path / "run", options)
    assert (outcome.reason, outcome.images_seen) == ("time limit", 16)


def test_the_old_run_is_freed_before_the_new_one_is_built(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When the encoder freezes: model, gradients, moments and EMA of the run before are gone (A14)."""
    begin, alive, begun = session.Session.begin, [], []

    def spied(self: session.Session, fresh: list[Any]) -> Any:
        begun.append(sum(reference() is not None for reference in alive))
        result = begin(self, fresh)
        run: Run = result[0]
        alive.extend(map(weakref.ref, [run.stage.model, run.state.optimizer, *run.state.tensors(False).values()]))
        return result

    monkeypatch.setattr(session.Session, "begin", spied)
    config = TrainConfig(**(vars(QUICK) | {"freeze_encoder_after": 16, "recompute_blocks": True}))
    gc.disable()  # what is freed is not so by luck
    try:
        assert train(plan_of(config), open_images(str(data)), tmp_path, TrainOptions(say=lambda _: None)).finished
    finally:
        gc.enable()
    assert len(alive) > 100
    assert begun == [0, 0]


def test_no_model_is_initialised_to_be_thrown_away(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Weights for validation and for files go into a model without memory of its own."""
    made: list[str] = []
    original = flowmo.FlowMo.__init__

    def spied(self: flowmo.FlowMo, config: Any) -> None:
        original(self, config)
        made.append(next(self.parameters()).device.type)

    monkeypatch.setattr(flowmo.FlowMo, "__init__", spied)
    config = TrainConfig(**(vars(QUICK) | {"validate_every": 16, "cooldown_images": 8}))
    train(plan_of(config), open_images(str(data)), tmp_path, TrainOptions(say=lambda _: None))
    assert made == [
        "cpu",
        "meta",
        "meta",
        "meta",
    ]  # the run's own; two validations, and the weights before the cool-down


def test_validation_is_in_the_precision_of_the_run(data: Path, tmp_path: Path) -> None:
    """The weights that are written stay those of the EMA."""
    seen: list[torch.dtype] = []

    def validation(model: nn.Module, world: World) -> Callable[[Any, int], dict]:
        images = torch.zeros(2, 3, 32, 32)

        def measure(ema: flowmo.FlowMo, _: int) -> dict[str, float]:
            seen.extend({p.dtype for p in ema.parameters()})
            return {"mean": float(ema.reconstruct(images, num_steps=2).mean())}

        return measure

    config = TrainConfig(**(vars(QUICK) | {"images": 8}))
    for name, precision in (("fp32", "fp32"), ("bf16", "bf16")):
        changed = TrainConfig(**(vars(config) | {"precision": precision}))
        plan = plan_of(changed, validation=validation)
        train(plan, open_images(str(data)), tmp_path / name, TrainOptions(say=lambda _: None))
        model = load_model(tmp_path / name / "model.safetensors")
        assert not all(torch.equal(p, p.bfloat16().float()) for p in model.parameters())
    assert seen == [torch.float32, torch.bfloat16]


def test_what_does_not_fit_is_said_before_a_folder_is_made(data: Path, tmp_path: Path) -> None:
    source = open_images(str(data))
    with pytest.raises(ConfigError, match="cannot be split over 1 processes"):
        train(plan_of(TrainConfig(batch_size=8, micro_batch=3)), source, tmp_path / "run")
    assert not (tmp_path / "run").exists()
    with pytest.raises(ConfigError, match="--cooldown goes on from a checkpoint"):
        train(plan_of(), source, tmp_path / "other", TrainOptions(cooldown=8, say=lambda _: None))
    train(plan_of(), source, tmp_path / "run", TrainOptions(seconds=0, say=lambda _: None))
    stranger = plan_of(fits=lambda checkpoint: False)
    with pytest.raises(TrainingError, match="holds a run of another model"):
        train(stranger, source, tmp_path / "run", TrainOptions(say=lambda _: None))
    assert World().size == 1


def test_the_documented_call_runs(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The program of docs/TRAINING.md, on real images."""
    text = (Path(__file__).parents[2] / "docs" / "TRAINING.md").read_text()
    (program,) = re.findall(r"^```python\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL)
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    exec(program.replace('"photos/"', repr(str(data))), names)
    assert (names["outcome"].finished, names["outcome"].images_seen) == (True, 64)
    assert names["model"].config == tiny()
