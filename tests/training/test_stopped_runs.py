"""What a run that was stopped leaves: the averaged weights so far, in words and in a file that every command takes.
Real photographs, the tiny model, no LPIPS."""

from __future__ import annotations

import json
import math
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from run_support import BATCH, STEPS, checkpoints_of, command, finish, start, wait_for_step

import flowmo
from flowmo.cli.main import main
from flowmo.errors import WeightsError
from flowmo.generation import load_generator
from flowmo.pipelines.loading import LoadOptions
from flowmo.tokenizer import FlowMo
from flowmo.training import TrainConfig, TrainState, World, averaged_model, loop, read_newest
from flowmo.training.monitoring import health
from flowmo.training.start import stored_model_config
from flowmo.weights import load_model, read_about


def average_of(folder: Path) -> dict[str, torch.Tensor]:
    """The moving average in the newest checkpoint, as half precision stores it."""
    checkpoint = read_newest(folder)
    assert checkpoint is not None
    state = TrainState.start(FlowMo(stored_model_config(checkpoint)), TrainConfig())
    checkpoint.restore(state, World())
    return {name: weight.half().float() for name, weight in state.ema.weights.items()}


def is_average_of(model: FlowMo, folder: Path) -> bool:
    average = average_of(folder)
    return all(torch.equal(p, average[name]) for name, p in model.named_parameters())


def test_a_time_limit_leaves_the_averaged_weights(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(command(data, tmp_path, "--time-limit", "0s")) == 0
    said = capsys.readouterr().out
    about = read_about(tmp_path / "model.safetensors")
    assert about == {
        "images": BATCH, "images_planned": BATCH * STEPS, "finished": False, "weights": "EMA"
    }  # fmt: skip
    assert is_average_of(load_model(tmp_path / "model.safetensors"), tmp_path)
    assert "time limit after 8 images of 320 (2%)" in said
    assert "good to look at (--model) and to start other runs from (--init)" in said
    assert "with --cooldown 8 added, it ends well" in said
    assert main(command(data, tmp_path, "--cooldown", "8")) == 0
    about = read_about(tmp_path / "model.safetensors")
    assert (about["images"], about["finished"]) == (16, True)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_leaves_the_averaged_weights(data: Path, tmp_path: Path, number: signal.Signals) -> None:
    before = signal.signal(number, signal.SIG_DFL)  # ignored where tests run in the background
    process = start(command(data, tmp_path, images=10**6))
    signal.signal(number, before)
    wait_for_step(process, tmp_path, 2)
    process.send_signal(number)
    assert "model.safetensors" in finish(process, timeout=60)
    assert read_about(tmp_path / "model.safetensors")["finished"] is False
    assert is_average_of(load_model(tmp_path / "model.safetensors"), tmp_path)


def test_a_run_that_diverges_leaves_the_averaged_weights(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    gradient_norm = health.gradient_norm
    monkeypatch.setattr(
        health,
        "gradient_norm",
        lambda state: gradient_norm(state) * (1.0 if state.step < 2 else math.nan),
    )
    assert main(command(data, tmp_path, most_skipped=2)) != 0
    assert "2 steps in a row" in capsys.readouterr().err
    assert is_average_of(load_model(tmp_path / "model.safetensors"), tmp_path)


def test_commands_take_a_checkpoint_or_a_run_without_a_model(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Also a run that was killed, which has checkpoints alone; both are the model that would have been written."""
    assert main(command(data, tmp_path, "--time-limit", "0s")) == 0
    stored = load_model(tmp_path / "model.safetensors")
    (tmp_path / "model.safetensors").unlink()
    checkpoint = checkpoints_of(tmp_path)[-1]
    for name in (tmp_path, checkpoint):
        with pytest.raises(WeightsError, match=r"averaged_model.* loads it"):
            flowmo.load(name)
        assert averaged_model(str(name)).fingerprint() == stored.fingerprint()
        model = LoadOptions().load(str(name))
        assert model.fingerprint() == stored.fingerprint()
        assert is_average_of(model, tmp_path)
    capsys.readouterr()
    begin = command(data, tmp_path / "next", "--init", str(checkpoint), images=BATCH, cooldown_images=0)
    assert main(begin) == 0
    assert main(["info", str(checkpoint), "--json"]) == 0
    shown = capsys.readouterr().out
    assert json.loads(shown[shown.index("{\n") :])["what"] == "checkpoint"
    arguments = ["--model", str(checkpoint), "--device", "cpu", "--out", str(tmp_path / "tokens")]
    Image.fromarray(np.load(data)[0]).save(tmp_path / "one.png")
    assert main(["tokenize", str(tmp_path / "one.png"), *arguments]) == 0


def test_a_generator_whose_run_was_killed_says_what_to_do(tmp_path: Path) -> None:
    folder = tmp_path / "checkpoint-0000000008"
    folder.mkdir()
    (folder / "checkpoint.json").write_text("{}")
    with pytest.raises(WeightsError, match="the run's own command goes on"):
        load_generator(tmp_path)
    with pytest.raises(WeightsError, match="flowmo train-generator"):
        load_generator(tmp_path / "nothing")


def test_an_update_that_the_time_limit_cuts_off_is_taken_again(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def settings(folder: str) -> list[str]:
        return command(data, tmp_path / folder, images=16, cooldown_images=0, micro_batch=4)

    assert main(settings("whole")) == 0
    with monkeypatch.context() as patched:
        patched.setattr(loop, "LATE", 0.0)
        assert main([*settings("cut"), "--time-limit", "0s"]) == 0
    said = "".join(capsys.readouterr())
    assert "the time limit came within an update of 8 images, which is not counted" in said
    assert "time limit before the first update; " in said
    assert "--cooldown" not in said
    assert read_about(tmp_path / "cut/model.safetensors")["images"] == 0
    assert main(settings("cut")) == 0
    whole, cut = (load_model(tmp_path / name / "model.safetensors").state_dict() for name in ("whole", "cut"))
    assert all(torch.equal(whole[name], cut[name]) for name in whole)


def test_no_update_begins_after_the_time_limit(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Also where the first update, whose length nobody knows before, was begun in time and ended after the limit."""
    monkeypatch.setattr(loop.Run, "signals", lambda *_: loop.NO_SIGNALS)
    assert main(command(data, tmp_path, "--time-limit", "0s", images=32, cooldown_images=0)) == 0
    assert "time limit after 8 images of 32" in capsys.readouterr().out
