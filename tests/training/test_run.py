"""A run as a user starts it: killed, resumed, stopped, refused. Real photographs, the tiny model, no LPIPS."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from flowmo.cli.main import main
from flowmo.data import open_images, to_uint8
from flowmo.errors import TrainingError
from flowmo.presets import tiny
from flowmo.stages import LossWeights
from flowmo.tokenizer import FlowMo
from flowmo.training import Run, TrainConfig, TrainState, mode_matching_step, read_newest
from flowmo.weights import load_model, read_about, save_model

SOURCE = Path(__file__).parents[2] / "src"
BATCH, STEPS = 8, 40
SETTINGS = {
    "images": BATCH * STEPS,
    "batch_size": BATCH,
    "learning_rate": 1e-3,
    "warmup_images": 40,
    "cooldown_images": 80,
    "losses.perceptual": 0,
    "log_steps": 1,
    "check_images": 200,
    "checkpoint_minutes": 0,  # after every step
    "keep": 3,
}


@pytest.fixture(scope="module")
def data(photographs: Callable[[str, int], Tensor], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("data") / "photographs.npy"
    np.save(path, to_uint8(photographs("train", 100)).permute(0, 2, 3, 1).numpy())
    return path


def command(data: Path, out: Path, *more: str, **settings: object) -> list[str]:
    values = [f"{name}={value}" for name, value in (SETTINGS | settings).items()]
    return ["train", str(data), str(out), "--preset", "tiny", "--device", "cpu", *more, "--set", *values]


def start(arguments: list[str]) -> subprocess.Popen[str]:
    environment = os.environ | {"PYTHONPATH": str(SOURCE), "OMP_NUM_THREADS": "1"}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True, "env": environment}
    return subprocess.Popen([sys.executable, "-m", "flowmo", *arguments], **pipes)  # type: ignore[call-overload,no-any-return]


def log_of(folder: Path) -> dict[int, dict[str, Any]]:
    """Loss terms by step; a step that was done twice counts as it was the last time."""
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    timing = ("images_per_s", "hours_left")
    return {line["step"]: {k: v for k, v in line.items() if k not in timing} for line in lines if "step" in line}


@pytest.fixture(scope="module")
def whole(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run that nothing interrupted."""
    folder = tmp_path_factory.mktemp("runs") / "whole"
    process = start(command(data, folder))
    output, _ = process.communicate(timeout=240)
    assert process.returncode == 0, output
    return folder


def test_a_run_leaves_what_it_promises(whole: Path) -> None:
    log = log_of(whole)
    assert list(log) == list(range(1, STEPS + 1))
    assert set(log[1]) == {
        "step", "images", "total", "flow", "perceptual", "sample_entropy", "codebook_entropy", "commitment", "lr"
    }  # fmt: skip
    assert sum(log[k]["flow"] for k in range(36, 41)) < 0.9 * sum(log[k]["flow"] for k in range(1, 6))
    model = load_model(whole / "model.safetensors")
    assert model.config == tiny()
    assert read_about(whole / "model.safetensors")["images"] == BATCH * STEPS
    assert read_about(whole / "raw_before_cooldown.safetensors")["images"] == 240
    assert [p.name for p in sorted((whole / "pictures").iterdir())] == ["0000000200.png", "0000000320.png"]
    stored = json.loads((whole / "config.json").read_text())
    assert stored["train"]["learning_rate"] == 1e-3
    assert stored["model"]["num_tokens"] == 16
    assert len(list(whole.glob("checkpoint-*.pt"))) == 3
    checks = [json.loads(line) for line in (whole / "log.jsonl").read_text().splitlines() if "psnr" in line]
    assert [line["images"] for line in checks] == [200, 320]


def test_killed_and_resumed_it_is_the_same_run(data: Path, whole: Path, tmp_path: Path) -> None:
    """SIGKILL anywhere, then the same command: every loss and the final weights are those of the whole run."""
    process = start(command(data, tmp_path))
    deadline = time.monotonic() + 120
    while not (list(tmp_path.glob("checkpoint-*.pt")) and len(log_of(tmp_path)) >= 12):
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert len(log_of(tmp_path)) < STEPS
    # The newest checkpoint is also cut in half, as by a failing disk: the one before it serves.
    newest = max(tmp_path.glob("checkpoint-*.pt"))
    newest.write_bytes(newest.read_bytes()[: newest.stat().st_size // 2])

    again = start(command(data, tmp_path))
    output, _ = again.communicate(timeout=240)
    assert again.returncode == 0, output
    assert f"{newest} is damaged and passed over" in output
    assert "resuming at" in output
    assert log_of(tmp_path) == log_of(whole)
    ours, theirs = load_model(tmp_path / "model.safetensors"), load_model(whole / "model.safetensors")
    assert all(torch.equal(ours.get_parameter(n), p) for n, p in theirs.named_parameters())


def test_a_finished_run_has_nothing_left_to_do(data: Path, whole: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = log_of(whole)
    assert main(command(data, whole)) == 0
    assert "finished after 320 images" in capsys.readouterr().out
    assert log_of(whole) == before


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
    content = read_newest(tmp_path / "run")
    assert content is not None
    assert content["step"] == 1
    moments = content["optimizer"]["state"]
    assert all(entry["step"] == 1 for entry in moments.values())
    moved = max((content["model"][n] - p).abs().max().item() for n, p in model.named_parameters())
    assert 0 < moved < 1e-2  # one Adam step of at most the learning rate from there, and the norm's correction
    assert main([*arguments, "--model", "prediction=clean"]) == 2


def test_a_time_limit_stops_with_a_checkpoint(
    data: Path, whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(command(data, tmp_path, "--time-limit", "0s", checkpoint_minutes=10)) == 0
    assert "time limit after 8 images" in capsys.readouterr().out
    content = read_newest(tmp_path)
    assert content is not None
    assert content["images_seen"] == BATCH
    assert main(command(data, tmp_path, "--time-limit", "0s", checkpoint_minutes=10)) == 0
    assert "resuming at 8 images" in capsys.readouterr().out
    assert log_of(tmp_path)[2]["flow"] == pytest.approx(log_of(whole)[2]["flow"], rel=1e-3)


def test_a_request_to_stop_ends_with_a_checkpoint(data: Path, tmp_path: Path) -> None:
    process = start(command(data, tmp_path, images=10**7, checkpoint_minutes=10))
    deadline = time.monotonic() + 120
    log = tmp_path / "log.jsonl"
    while not log.exists() or not log.stat().st_size:
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 0, output
    assert "stopped on request" in output
    content = read_newest(tmp_path)
    assert content is not None
    assert content["step"] == max(log_of(tmp_path))


def test_a_diverging_run_stops_and_says_what_helps(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(command(data, tmp_path, learning_rate=1e38, warmup_images=0, precision="fp32")) == 2
    error = capsys.readouterr().err
    assert "a weight is no longer finite at step 1" in error  # it saves after every step, and not that
    assert "lower learning_rate" in error


def test_a_loss_that_is_not_finite_leaves_the_weights_alone(data: Path, tmp_path: Path) -> None:
    config = TrainConfig(images=64, batch_size=8, losses=LossWeights(perceptual=1.0))
    state = TrainState.start(FlowMo(tiny()), config)
    before = {n: p.detach().clone() for n, p in state.model.named_parameters()}

    def broken(image: Tensor, reference: Tensor) -> Tensor:
        return (image - reference).flatten(1).mean(1) * torch.nan

    run = Run(tmp_path, config, state, mode_matching_step(config, broken), say=lambda _: None)
    with pytest.raises(TrainingError, match="the loss is nan at step 0"):
        run.train(open_images(data))
    assert all(torch.equal(p, before[n]) for n, p in state.model.named_parameters())


def test_only_damaged_checkpoints_are_an_error_not_a_new_run(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert read_newest(tmp_path) is None
    for k in (8, 16):
        (tmp_path / f"checkpoint-{k:010d}.pt").write_bytes(b"PK\x03\x04 not a checkpoint")
    assert main(command(data, tmp_path)) == 2
    error = capsys.readouterr().err
    assert "every checkpoint" in error
    assert "0000000008.pt is damaged" in error


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
