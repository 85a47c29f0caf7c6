"""Steps that are not finite, and what the log says about a run."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from run_support import BATCH, CLOCK, checkpoints_of, command, lines_of, log_of
from small_run import CONFIG, real_run
from torch import Tensor

from flowmo import samples
from flowmo.cli.main import main
from flowmo.errors import TrainingError
from flowmo.training import Run
from flowmo.training.processes.signals import Exchange


def snapshot(run: Run) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in run.state.tensors().items()}


@pytest.mark.parametrize("deferred", [False, True])
@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_a_gradient_that_is_not_finite_changes_nothing(
    data: Path, tmp_path: Path, value: float, deferred: bool
) -> None:
    """Injected into one weight's gradient in the third step of a real run: weights, moments, averages and norms are
    those of the step before, bit for bit, and the run goes on."""
    run, loader = real_run(data, tmp_path)
    run.deferred = deferred
    states: list[dict[str, Tensor]] = []
    counted = 0

    def poison(gradient: Tensor) -> Tensor:
        nonlocal counted
        counted += 1
        states.append(snapshot(run))
        if counted != 3:
            return gradient
        gradient = gradient.clone()
        gradient.view(-1)[7] = value
        return gradient

    run.state.model.decoder.readout.weight.register_hook(poison)
    assert run.train(loader).finished
    before, after = states[2], states[3]
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert any(not torch.equal(after[name], states[4][name]) for name in after)
    assert run.state.skipped == 1
    skipped = [line for line in lines_of(tmp_path) if "skipped_step" in line]
    assert [line["skipped_step"] for line in skipped] == [3]
    assert len(skipped[0]["batch"]) == BATCH
    assert all(name.startswith("photographs:") for name in skipped[0]["batch"])
    assert [line["skipped_steps"] for line in log_of(tmp_path).values()] == [0, 0, 1, 1, 1, 1, 1, 1]


def test_an_answer_read_a_step_later_changes_nothing(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a GPU, which no step then waits for: the run is the same to the bit, a skipped step included, and what all
    agreed on in a step is read when the gradient of the next one is there."""
    config = replace(CONFIG, log_steps=4, cooldown_images=32, gradient_clip=1.0, ema_every=2)
    events: list[str] = []
    differentiate, read = Run.differentiate, Exchange.read
    monkeypatch.setattr(Run, "differentiate", lambda run, batch: (events.append("d"), differentiate(run, batch))[1])
    monkeypatch.setattr(Exchange, "read", lambda exchange: (events.append("r"), read(exchange))[1])

    def run_of(name: str, deferred: bool) -> tuple[dict[str, Tensor], list[dict], str]:
        events.clear()
        torch.manual_seed(0)
        run, loader = real_run(data, tmp_path / name, config)
        run.deferred = deferred
        gradients = 0

        def poison(gradient: Tensor) -> Tensor:
            nonlocal gradients
            gradients += 1
            return gradient * torch.nan if gradients == 6 else gradient

        run.state.model.encoder.readout.weight.register_hook(poison)
        assert run.train(loader).finished
        assert (run.state.skipped, run.state.step) == (1, 8)
        lines = [{k: v for k, v in line.items() if k not in CLOCK} for line in lines_of(tmp_path / name)]
        return snapshot(run), lines, "".join(events)

    expected, lines, order = run_of("waits", False)
    assert order == "drr" * 5 + "drr" * 3
    found, lines_later, order_later = run_of("later", True)
    assert order_later == "d" + "dr" * 3 + "r" + "d" + "dr" * 3 + "r"  # all is read before a line of the log
    assert lines_later == lines
    assert set(found) == set(expected)
    for name, tensor in found.items():
        assert torch.equal(tensor, expected[name]), name


def test_too_many_in_a_row_stop_the_run_with_the_last_good_weights(data: Path, tmp_path: Path) -> None:
    run, loader = real_run(data, tmp_path)
    before = {}

    def poison(gradient: Tensor) -> Tensor | None:
        if run.state.step < 2:
            return None
        before.setdefault("state", snapshot(run))
        return gradient * torch.nan

    run.state.model.decoder.readout.bias.register_hook(poison)
    with pytest.raises(TrainingError, match=r"3 steps in a row .* lower learning_rate, set gradient_clip"):
        run.train(loader)
    assert all(torch.equal(tensor, before["state"][name]) for name, tensor in snapshot(run).items())
    assert [p.name for p in checkpoints_of(tmp_path)] == [f"checkpoint-{5 * BATCH:010d}"]


def test_a_diverging_run_stops_and_says_what_helps(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(command(data, tmp_path, learning_rate=1e38, warmup_images=0, precision="fp32")) == 2
    error = capsys.readouterr().err
    assert "a weight is no longer finite at step 1" in error  # it saves after every step, and not that
    assert "lower learning_rate" in error


def test_a_broken_picture_is_named_and_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Once in each of two processes, the second of which resumes, in four epochs; the run uses others instead."""
    data = tmp_path / "data"
    data.mkdir()
    for k, path in enumerate(samples.paths()):
        (data / f"{k}.jpg").write_bytes(path.read_bytes()[: 2000 if k == 3 else None])
    arguments = command(data, tmp_path / "run", images=32, cooldown_images=0)
    assert main([*arguments, "--validation", str(samples.paths()[0]), "--time-limit", "0s"]) == 0
    assert main([*arguments, "--validation", str(samples.paths()[0])]) == 0
    broken = [line for line in lines_of(tmp_path / "run") if "broken" in line]
    assert [(line["images"], line["broken_images"]) for line in broken] == [(8, 1), (16, 2)]
    assert {name for line in broken for name in line["broken"]} == {"3.jpg"}
    assert capsys.readouterr().out.count("cannot be read, so other images take their place: 3.jpg") == 2
    assert [line["broken_images"] for line in log_of(tmp_path / "run").values()] == [1, 2, 2, 2]


def test_data_that_change_under_a_run_are_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = tmp_path / "data"
    data.mkdir()
    for path in samples.paths():
        (data / path.name).write_bytes(path.read_bytes())
    arguments = [
        *command(data, tmp_path / "run", images=32, cooldown_images=0),
        "--validation",
        str(samples.paths()[0]),
    ]
    assert main([*arguments, "--time-limit", "0s"]) == 0
    assert main([*arguments, "--time-limit", "0s"]) == 0
    assert "the data have changed" not in capsys.readouterr().out
    (data / "new.jpg").write_bytes(samples.paths()[0].read_bytes())
    assert main([*arguments, "--time-limit", "0s"]) == 0
    assert "the data have changed: 9 images where there were 8" in capsys.readouterr().out


def test_tensorboard_gets_the_same_numbers_and_the_pictures(data: Path, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    assert main(command(data, tmp_path, images=24, cooldown_images=0, validate_every=16)) == 0
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    flow = {event.step: event.value for event in events.Scalars("flow")}
    assert flow == pytest.approx({line["images"]: line["flow"] for line in log_of(tmp_path).values()})
    assert [event.step for event in events.Images("reconstructions")] == [16, 24]


def test_wandb_is_asked_for_by_name(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    try:
        import wandb  # noqa: F401
    except ImportError:
        assert main(command(data, tmp_path, "--wandb", "flowmo")) == 2
        assert "pip install wandb" in capsys.readouterr().err
    else:
        pytest.skip("Weights & Biases is installed: its offline run was tried by hand")
