"""A run as a user starts it: killed, resumed, stopped, refused. Real photographs, the tiny model, no LPIPS."""

from __future__ import annotations

import json
import random
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
from run_support import (
    BATCH,
    SELDOM,
    STEPS,
    checkpoints_of,
    command,
    finish,
    kill,
    lines_of,
    log_of,
    start,
    wait_for_step,
)

from flowmo.cli.main import main
from flowmo.presets import tiny
from flowmo.tokenizer import FlowMo
from flowmo.training import Run, TrainConfig, TrainState, World, read_newest
from flowmo.training.monitoring.validation import Validator
from flowmo.weights import load_model, read_about, save_model


def test_a_run_leaves_what_it_promises(whole: Path) -> None:
    log = log_of(whole)
    assert list(log) == list(range(1, STEPS + 1))
    assert set(log[1]) == {
        "step", "images", "total", "flow", "perceptual", "sample_entropy", "codebook_entropy", "commitment", "lr",
        "gradient_norm", "parameter_norm", "bit_entropy", "bits_never_flip", "skipped_steps", "broken_images",
    }  # fmt: skip
    assert {"images_per_s", "hours_left", "data_wait", "memory_mb", "utilisation"} <= set(lines_of(whole)[0])
    assert sum(log[k]["flow"] for k in range(36, 41)) < 0.9 * sum(log[k]["flow"] for k in range(1, 6))
    model = load_model(whole / "model.safetensors")
    assert model.config == tiny()
    assert read_about(whole / "model.safetensors")["images"] == BATCH * STEPS
    assert read_about(whole / "raw_before_cooldown.safetensors")["images"] == 240
    assert [p.name for p in sorted((whole / "pictures").iterdir())] == ["0000000200.png", "0000000320.png"]
    stored = json.loads((whole / "config.json").read_text())
    assert stored["train"]["learning_rate"] == 1e-3
    assert stored["model"]["num_tokens"] == 16
    assert [line["images"] for line in lines_of(whole) if "psnr" in line] == [200, 320]


@pytest.mark.parametrize("damaged", [True, False])
def test_killed_and_resumed_it_is_the_same_run(data: Path, whole: Path, tmp_path: Path, damaged: bool) -> None:
    """SIGKILL at a random step, then the same command: every loss and the final weights are those of the whole run.
    tools/kill_and_resume.py does the same twenty times at random instants."""
    process = start(command(data, tmp_path))
    wait_for_step(process, tmp_path, random.Random(int(damaged)).randrange(4, 12))
    kill(process)
    assert len(log_of(tmp_path)) < STEPS
    if damaged:  # the newest is also cut in half, as by a failing disk: the one before it serves
        newest = checkpoints_of(tmp_path)[-1] / "__0_0.distcp"
        newest.write_bytes(newest.read_bytes()[: newest.stat().st_size // 2])
    output = finish(start(command(data, tmp_path, **SELDOM)))
    assert ("is damaged: __0_0.distcp is not as it was written" in output) == damaged
    assert "resuming at" in output
    assert log_of(tmp_path) == log_of(whole)
    ours, theirs = load_model(tmp_path / "model.safetensors"), load_model(whole / "model.safetensors")
    assert all(torch.equal(ours.get_parameter(n), p) for n, p in theirs.named_parameters())
    assert not list(tmp_path.glob(".checkpoint*"))


def test_means_of_several_steps_survive_a_stop_between_them(data: Path, tmp_path: Path) -> None:
    """A line of the log is a mean over steps before and after the resume."""
    settings = {"images": 32, "log_steps": 2, "cooldown_images": 0, "workers": 0}
    assert main(command(data, tmp_path / "whole", **settings)) == 0
    for _ in range(4):
        assert main(command(data, tmp_path / "parts", "--time-limit", "0s", **settings)) == 0
    assert log_of(tmp_path / "parts") == log_of(tmp_path / "whole")
    assert list(log_of(tmp_path / "whole")) == [2, 4]
    for folder in ("whole", "parts"):  # one after every step, of which the newest stay
        kept = [path.name for path in checkpoints_of(tmp_path / folder)]
        assert kept == [f"checkpoint-{k:010d}" for k in (16, 24, 32)]


def test_a_finished_run_has_nothing_left_to_do(data: Path, whole: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = log_of(whole)
    assert main(command(data, whole)) == 0
    assert "finished after 320 images" in capsys.readouterr().out
    assert log_of(whole) == before


def test_killed_between_its_last_checkpoint_and_its_weights(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Weights of an earlier validation are not left as those of the finished run; the same command writes those."""

    class Killed(BaseException):
        pass

    def killed(validator: Validator) -> str | None:
        if validator.state.images_seen == 48:
            raise Killed
        return validate(validator)

    validate, settings = Validator.validate, {"images": 48, "validate_every": 16, "cooldown_images": 0}
    with monkeypatch.context() as patch:
        patch.setattr(Validator, "validate", killed)
        with pytest.raises(Killed):
            main(command(data, tmp_path, **settings))
    assert not (tmp_path / "model.safetensors").exists()
    assert main(command(data, tmp_path, **settings)) == 0
    assert read_about(tmp_path / "model.safetensors")["images"] == 48


def test_crops_smaller_than_the_model_is_meant_for(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are cut at the scale of the whole pictures, here without scaling; the model stays one of whole pictures."""
    seen: list[torch.Tensor] = []
    update = Run.update
    monkeypatch.setattr(
        Run, "update", lambda run, batch, signals: seen.append(batch.pixels) or update(run, batch, signals)
    )  # type: ignore[func-returns-value]
    assert main(command(data, tmp_path / "run", images=16, crop_size=24, workers=0)) == 0
    assert {tuple(pixels.shape) for pixels in seen} == {(BATCH, 3, 24, 24)}
    pictures = torch.from_numpy(np.load(data)).permute(0, 3, 1, 2)
    windows = pictures.unfold(2, 24, 1).unfold(3, 24, 1)  # n 3 9 9 24 24
    for crop in torch.cat(seen):
        assert (windows == crop[None, :, None, None]).all(-1).all(-1).all(1).any()
    assert load_model(tmp_path / "run" / "model.safetensors").config == tiny()
    for size in (20, 40):
        assert main(command(data, tmp_path / str(size), crop_size=size)) == 2
        assert f"crop_size {size} must be a multiple of the patch size 8 and at most" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"learning_rate": 5e-4}, ["other settings", "learning_rate: 0.001 there", "give another folder"]),
        ({"losses.entropy": 0.1, "batch_size": 4}, ["batch_size: 8 there", "losses"]),
    ],
)
def test_changed_settings_are_refused(
    settings: dict[str, object], said: list[str], data: Path, whole: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(command(data, whole, **settings)) == 2
    error = capsys.readouterr().err
    assert all(words in error for words in said), error
    assert "Traceback" not in error


def test_another_model_is_refused(data: Path, whole: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(command(data, whole, "--model", "prediction=clean")) == 2
    assert "holds a run of another model" in capsys.readouterr().err


def test_init_takes_the_weights_and_nothing_else(data: Path, tmp_path: Path) -> None:
    """Fresh moments, a fresh count; and the configuration of the weights, not of the preset."""
    torch.manual_seed(5)
    model = FlowMo(tiny())
    save_model(model, tmp_path / "first.safetensors", torch.float32)
    arguments = command(data, tmp_path / "run", "--init", str(tmp_path / "first.safetensors"), images=BATCH)
    assert main(arguments) == 0
    checkpoint = read_newest(tmp_path / "run")
    assert checkpoint is not None
    state = TrainState.start(FlowMo(tiny()), TrainConfig())
    checkpoint.restore(state, World())
    assert state.step == 1
    assert all(entry["step"] == 1 for entry in state.optimizer.state.values())
    trained = dict(state.model.named_parameters())
    moved = max((trained[n] - p).abs().max().item() for n, p in model.named_parameters())
    assert 0 < moved < 1e-2  # one Adam step of at most the learning rate from there, and the norm's correction
    assert main([*arguments, "--model", "prediction=clean"]) == 2


def test_a_time_limit_stops_with_a_checkpoint(
    data: Path, whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(command(data, tmp_path, "--time-limit", "0s", checkpoint_minutes=10)) == 0
    assert "time limit after 8 images" in capsys.readouterr().out
    checkpoint = read_newest(tmp_path)
    assert checkpoint is not None
    assert checkpoint.about["images_seen"] == BATCH
    assert main(command(data, tmp_path, "--time-limit", "0s", checkpoint_minutes=10)) == 0
    assert "resuming at 8 images" in capsys.readouterr().out
    assert log_of(tmp_path)[2]["flow"] == pytest.approx(log_of(whole)[2]["flow"], rel=1e-3)


def test_a_request_to_stop_ends_with_a_checkpoint(data: Path, tmp_path: Path) -> None:
    process = start(command(data, tmp_path, images=10**7))
    wait_for_step(process, tmp_path, 2)
    process.send_signal(signal.SIGTERM)
    assert "stopped on request" in finish(process, timeout=60)
    checkpoint = read_newest(tmp_path)
    assert checkpoint is not None
    assert checkpoint.about["step"] == max(log_of(tmp_path))


def test_dry_run_touches_nothing(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*command(data, tmp_path / "run"), "--dry-run"]) == 0
    assert '"learning_rate": 0.001' in capsys.readouterr().out
    assert not (tmp_path / "run").exists()


def test_a_resumed_run_no_longer_needs_what_it_began_with(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    weights = tmp_path / "begin.safetensors"
    save_model(FlowMo(tiny()), weights)
    arguments = command(data, tmp_path / "run", "--init", str(weights), "--time-limit", "0s", seed=20261122)
    assert main(arguments) == 0
    weights.unlink()
    assert main(arguments) == 0
    assert "resuming at" in capsys.readouterr().out


def test_files_that_no_run_made_are_left_alone(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    mine = tmp_path / "model.safetensors"
    mine.write_bytes(b"mine")
    assert main(command(data, tmp_path)) == 2
    assert "model.safetensors that no run made" in capsys.readouterr().err
    assert mine.read_bytes() == b"mine"


def test_wrong_data_leave_no_empty_folder(tmp_path: Path) -> None:
    assert main(command(tmp_path / "nothing-here", tmp_path / "out")) == 2
    assert not (tmp_path / "out").exists()
