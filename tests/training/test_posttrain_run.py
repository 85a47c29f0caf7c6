"""Runs of Stage 1B as users start them (Section 3.3): what they leave, a kill, a time limit, two processes. Real
photographs, the tiny model, EfficientNet-lite0's logits."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image
from run_support import SELDOM, checkpoints_of, finish, kill, lines_of, log_of, start, wait_for_step
from torch import nn

from flowmo.cli.main import main
from flowmo.errors import WeightsError
from flowmo.perceptual import load_classifier
from flowmo.presets import tiny
from flowmo.tokenizer import FlowMo
from flowmo.training import TrainConfig, TrainState, World, read_newest
from flowmo.training.monitoring.early_stopping import best, validations_of
from flowmo.weights import load_model, read_about, save_model

BATCH, STEPS = 8, 12
SETTINGS = {
    "images": BATCH * STEPS,
    "batch_size": BATCH,
    "micro_batch": 4,
    "learning_rate": 1e-3,
    "warmup_images": 16,
    "cooldown_images": 32,
    "sample.num_steps": 2,
    "sample.network_side": 32,
    "sample.patience": 0,
    "validate_every": 32,
    "checkpoint_minutes": 0,  # after every step
    "log_steps": 1,
    "workers": 0,
}


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory, lively: Callable[[nn.Module], nn.Module]) -> Path:
    try:
        load_classifier()
    except WeightsError as error:
        pytest.skip(str(error))
    path = tmp_path_factory.mktemp("weights") / "tiny.safetensors"
    torch.manual_seed(3)
    save_model(lively(FlowMo(tiny())), path, torch.float32)  # type: ignore[arg-type]
    return path


def command(data: Path, out: Path, weights: Path, *more: str, **settings: object) -> list[str]:
    values = [f"{name}={value}" for name, value in (SETTINGS | settings).items()]
    checks = ["--validation-count", "4", "--no-rfid", "--device", "cpu"]
    return ["posttrain", str(data), str(out), "--init", str(weights), *checks, *more, "--set", *values]


@pytest.fixture(scope="module")
def whole(data: Path, weights: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run that nothing interrupted. Tests only look at it."""
    folder = tmp_path_factory.mktemp("runs") / "whole"
    finish(start(command(data, folder, weights)))
    return folder


def same(a: Path, b: Path) -> bool:
    ours, theirs = load_model(a), load_model(b)
    return all(torch.equal(ours.get_parameter(name), p) for name, p in theirs.named_parameters())


def test_the_encoder_is_bitwise_what_it_was(whole: Path, weights: Path) -> None:
    """In the checkpoint, raw and averaged, and in the files of weights; only the decoder moved, and had moments."""
    before = load_model(weights)
    checkpoint = read_newest(whole)
    assert checkpoint is not None
    assert checkpoint.about["encoder_frozen"] is True
    model = FlowMo(tiny())
    model.encoder.requires_grad_(False)
    state = TrainState.start(model, TrainConfig())
    checkpoint.restore(state, World())
    assert len(state.trained) == len(list(model.decoder.parameters()))
    for name, p in before.named_parameters():
        if name.startswith("encoder."):
            assert torch.equal(model.get_parameter(name), p), name
            assert torch.equal(state.ema.weights[name], p), name
    moved = [not torch.equal(model.get_parameter(f"decoder.{n}"), p) for n, p in before.decoder.named_parameters()]
    assert all(moved)
    for name in ("model", "best", "raw_before_cooldown"):
        assert load_model(whole / f"{name}.safetensors").fingerprint() == before.fingerprint()


def test_a_run_of_stage_1b_leaves_what_it_promises(whole: Path) -> None:
    pytest.importorskip("matplotlib")
    log = log_of(whole)
    assert list(log) == list(range(1, STEPS + 1))
    assert {"total", "flow", "sample", "sample_entropy", "codebook_entropy", "commitment"} <= set(log[1])
    checks = validations_of(whole / "log.jsonl")
    assert [check["images"] for check in checks] == [0, 32, 64, 96]
    assert all({"distance", "psnr", "psnr_one_step"} <= set(check) for check in checks)
    assert all(check["network"].startswith("efficientnet_lite0 at 32 px (sha256 57934424") for check in checks)
    checkpoint = read_newest(whole)
    assert checkpoint is not None
    assert checkpoint.about["sample_network"]["name"] == "efficientnet_lite0"
    assert checkpoint.about["sample_network"]["side"] == 32
    assert read_about(whole / "best.safetensors") == {"weights": "EMA, best validation"} | best(checks)
    with Image.open(whole / "pictures" / "validations.png") as curves:
        assert curves.width > 2 * curves.height  # a panel each for distance, LPIPS and PSNR
        assert len(curves.convert("RGB").getcolors(1 << 20) or []) > 50
    assert [p.name for p in sorted((whole / "pictures").glob("0*.png"))] == [f"{n:010d}.png" for n in (0, 32, 64, 96)]


def test_killed_and_resumed_it_is_the_same_run(data: Path, weights: Path, whole: Path, tmp_path: Path) -> None:
    process = start(command(data, tmp_path, weights))
    wait_for_step(process, tmp_path, random.Random(0).randrange(3, 9))
    kill(process)
    assert len(log_of(tmp_path)) < STEPS
    output = finish(start(command(data, tmp_path, weights, **SELDOM)))
    assert "resuming at" in output
    assert log_of(tmp_path) == log_of(whole)
    assert validations_of(tmp_path / "log.jsonl") == validations_of(whole / "log.jsonl")
    assert same(tmp_path / "model.safetensors", whole / "model.safetensors")
    assert same(tmp_path / "best.safetensors", whole / "best.safetensors")


def test_a_time_limit_and_weights_that_are_gone(
    data: Path, weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    begin, run = tmp_path / "begin.safetensors", tmp_path / "run"
    begin.write_bytes(weights.read_bytes())
    arguments = command(data, run, begin, "--time-limit", "0s", checkpoint_minutes=10)
    assert main(arguments) == 0
    said = capsys.readouterr().out
    assert "time limit after 8 images" in said
    assert "good to look at (--model) and to start other runs from (--init)" in said
    assert said.count("validation is left out: of 4 images it takes time, and none is left") == 1
    assert read_about(tmp_path / "run" / "model.safetensors")["images"] == BATCH  # not those it started from
    begin.unlink()
    assert main(arguments) == 0
    assert "resuming at 8 images" in capsys.readouterr().out
    assert validations_of(run / "log.jsonl") == []
    begin.write_bytes(weights.read_bytes())
    save_model(FlowMo(tiny()), begin)
    assert main(arguments) == 2
    assert "holds a run of another model" in capsys.readouterr().err


def test_two_processes_are_one_with_micro_batches(data: Path, weights: Path, whole: Path, tmp_path: Path) -> None:
    finish(start(command(data, tmp_path, weights, images=24, cooldown_images=0), "--nproc-per-node", "2"))
    ours, theirs = log_of(tmp_path), log_of(whole)
    for step in (1, 2):
        for name in ("total", "flow", "sample", "gradient_norm"):
            assert ours[step][name] == pytest.approx(theirs[step][name], rel=1e-3), (step, name)
    assert len(checkpoints_of(tmp_path)) == 2
    assert [line["images"] for line in lines_of(tmp_path) if "distance" in line] == [0, 24]
