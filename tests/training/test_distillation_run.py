"""``flowmo distill`` as users start it (O11): a small tokenizer that has learned something becomes the teacher, and its
student samples in one step, or in one and two. Sample pictures, LPIPS for the checks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from run_support import log_of
from torch import Tensor

from flowmo import samples as pictures
from flowmo.cli.main import main
from flowmo.config import SamplerConfig
from flowmo.errors import WeightsError
from flowmo.flow import ThickTailedLogitNormal
from flowmo.perceptual import load_lpips
from flowmo.presets import tiny
from flowmo.provenance import weights_checksum
from flowmo.stages import LossWeights, draw, mode_matching_loss
from flowmo.tokenizer import FlowMo
from flowmo.training import Run, Signals, TrainConfig, TrainState, World, read_newest
from flowmo.training.monitoring.early_stopping import validations_of
from flowmo.weights import load_model, save_model

DATA = pictures.paths()[0].parent
SAMPLER = SamplerConfig(num_steps=4, rho=1.0, guidance_scale=1.5)
SETTINGS = {
    "batch_size": 8,
    "micro_batch": 8,
    "learning_rate": 1e-3,
    "warmup_images": 0,
    "cooldown_images": 0,
    "ema_decay": 0.8,
    "sample.network": "lpips_alex",
    "sample.patience": 0,
    "precision": "fp32",
    "log_steps": 1,
    "workers": 0,
}


@pytest.fixture(scope="module")
def teacher(samples: Callable[[int], Tensor], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sixty steps of Stage 1A on the sample pictures; one weight of the encoder is a zero with a sign."""
    try:
        load_lpips("alex")
    except WeightsError as error:
        pytest.skip(str(error))
    torch.manual_seed(0)
    model, images = FlowMo(replace(tiny(), prediction="clean", sampler=SAMPLER)), samples(32)
    generator, optimizer = torch.Generator().manual_seed(0), torch.optim.Adam(model.parameters(), lr=2e-3)
    for _ in range(60):
        draws = draw(images, ThickTailedLogitNormal(0.1, pure_noise_mass=0.3), 0.1, generator)
        optimizer.zero_grad()
        mode_matching_loss(model, images, draws, LossWeights(perceptual=0.0)).total.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 0.5)
        optimizer.step()
    with torch.no_grad():
        model.encoder.readout.weight[0, 0] = -0.0
    path = tmp_path_factory.mktemp("teacher") / "teacher.safetensors"
    save_model(model, path)
    return path


def command(out: Path, init: Path, *more: str, **settings: object) -> list[str]:
    values = [f"{name}={value}" for name, value in (SETTINGS | settings).items()]
    checks = ["--validation-count", "8", "--no-rfid", "--device", "cpu"]
    return ["distill", str(DATA), str(out), "--init", str(init), *checks, *more, "--set", *values]


LONG = {"images": 8 * 32, "validate_every": 8 * 16, "sample.weight": 0}
SHORT = {"images": 8 * 4, "validate_every": 16, "distill.steps": [2, 1], "distill.flow_weight": 0.1, "sample.rho": 2}


@pytest.fixture(scope="module")
def learned(teacher: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run of 32 steps. Tests only look at it."""
    folder = tmp_path_factory.mktemp("runs") / "learned"
    assert main(command(folder, teacher, **LONG)) == 0
    return folder


@pytest.fixture(scope="module")
def whole(teacher: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A short run for one and two steps, with the flow term, that nothing interrupted."""
    folder = tmp_path_factory.mktemp("runs") / "whole"
    assert main(command(folder, teacher, **SHORT)) == 0
    return folder


def test_one_step_of_the_student_is_nearer_to_the_teachers_sample(
    learned: Path, teacher: Path, samples: Callable[[int], Tensor]
) -> None:
    """Than one step of the teacher, from the same noise; its own sampler is that one step, and is used by default."""
    before, after = load_model(teacher), load_model(learned / "model.safetensors")
    tokens, seeds = before.tokenize(samples(32)), list(range(8))
    many = before.detokenize(tokens, seed=seeds)
    one = before.detokenize(tokens, num_steps=1, guidance_scale=1.0, seed=seeds)
    distilled = after.detokenize(tokens, seed=seeds)
    errors = [float((picture - many).square().mean()) for picture in (one, distilled)]
    assert errors[1] < 0.5 * errors[0], errors
    asked: list[int] = []
    after.decoder.image_in.register_forward_hook(lambda *_: asked.append(1))
    assert torch.equal(distilled, after.detokenize(tokens, seed=seeds))
    assert len(asked) == 1
    log = log_of(learned)
    assert log[32]["pixel"] < 0.5 * log[1]["pixel"]
    assert log[1]["sample"] == 0


def test_encoder_and_tokens_are_bitwise_what_they_were(learned: Path, teacher: Path) -> None:
    """In the checkpoint, raw and averaged, and in the files of weights; the sign of a zero included."""
    before = load_model(teacher)
    checkpoint = read_newest(learned)
    assert checkpoint is not None
    model = FlowMo(before.config)
    model.encoder.requires_grad_(False)
    state = TrainState.start(model, TrainConfig())
    checkpoint.restore(state, World())
    files = [load_model(learned / f"{name}.safetensors") for name in ("model", "best")]
    for name, weight in before.encoder.named_parameters():
        found = [model.encoder.get_parameter(name), state.ema.weights[f"encoder.{name}"]]
        for other in [*found, *(file.encoder.get_parameter(name) for file in files)]:
            assert torch.equal(other.view(torch.int32), weight.view(torch.int32)), name
    assert torch.signbit(files[0].encoder.readout.weight[0, 0])
    assert {file.fingerprint() for file in files} == {before.fingerprint()}
    moved = [not torch.equal(files[0].decoder.get_parameter(n), p) for n, p in before.decoder.named_parameters()]
    assert sum(moved) > 0.9 * len(moved)


def test_the_sampler_that_is_stored_and_the_teacher_that_is_named(learned: Path, whole: Path, teacher: Path) -> None:
    for folder, steps, rho in ((learned, 1, 1.0), (whole, 2, 2.0)):
        for name in ("model", "best"):
            sampler = load_model(folder / f"{name}.safetensors").config.sampler
            assert (sampler.num_steps, sampler.rho, sampler.guidance_scale) == (steps, rho, 1.0)
        checkpoint, sha256 = read_newest(folder), weights_checksum(load_model(teacher))
        assert checkpoint is not None
        assert checkpoint.about["teacher"]["sha256"] == sha256
        assert checkpoint.about["teacher"]["sampler"]["num_steps"] == 4
        checks = validations_of(folder / "log.jsonl")
        assert next(check["images"] for check in checks) == 0
        assert all(check["teacher"] == f"sha256 {sha256[:8]}, 4 steps, rho 1, guidance 1.5" for check in checks)
        assert (checks[-1]["psnr"] == checks[-1]["psnr_one_step"]) == (steps == 1)  # of the student's own sampler
    assert {"pixel", "sample", "flow"} <= set(log_of(whole)[1])


def test_stopped_and_resumed_it_is_the_same_run(
    whole: Path, teacher: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It goes on with the number of steps whose turn it is. Kills: see test_posttrain_run.py, the same code."""
    with monkeypatch.context() as patch:
        patch.setattr(Run, "signals", lambda *_: Signals(stop=True))
        assert main(command(tmp_path, teacher, **SHORT)) == 0
    assert "stopped on request after 8 images" in capsys.readouterr().out
    assert len(log_of(tmp_path)) == 1
    assert main(command(tmp_path, teacher, **SHORT)) == 0
    assert "resuming at 8 images" in capsys.readouterr().out
    assert log_of(tmp_path) == log_of(whole)
    assert validations_of(tmp_path / "log.jsonl") == validations_of(whole / "log.jsonl")
    for name in ("model", "best"):
        ours, theirs = (load_model(folder / f"{name}.safetensors") for folder in (tmp_path, whole))
        assert all(torch.equal(ours.get_parameter(n), p) for n, p in theirs.named_parameters())


def test_another_teacher_is_refused_on_resume(
    teacher: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, other = tmp_path / "run", tmp_path / "other.safetensors"
    assert main(command(run, teacher, "--time-limit", "0s", **SHORT)) == 0
    model = load_model(teacher)
    with torch.no_grad():
        model.decoder.readout.weight += 0.01
    save_model(model, other)
    log = (run / "log.jsonl").read_text()
    for more, changed in ((("--teacher", str(other)), {}), ((), {"distill.teacher_guidance": 2})):
        assert main(command(run, teacher, *more, **SHORT | changed)) == 2
        said = capsys.readouterr().err
        assert "another teacher" in said or "distill: {" in said
    assert (run / "log.jsonl").read_text() == log
