"""``flowmo distill``: what it says before anything is trained, and its settings (O11)."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from command_support import CAT, CHECKS, Command, resolved
from torch import nn

import flowmo as package
from flowmo.presets import tiny
from flowmo.tokenizer import FlowMo
from flowmo.weights import save_model

QUICK = ("images=8", "batch_size=4", "micro_batch=2", "sample.network=lpips_alex", "workers=0", "warmup_images=0",
         "cooldown_images=0", "validate_every=8", "log_steps=1")  # fmt: skip


def test_a_dry_run_shows_the_students_sampler(flowmo: Command, weights: Path) -> None:
    before = package.load(weights).config.sampler
    model, train = resolved(flowmo, "distill", "--init", weights)
    assert model["sampler"] == {
        "num_steps": 1,
        "rho": before.rho,
        "guidance_scale": 1.0,
        "guidance_interval": list(before.guidance_interval),
        "solver": "euler",
    }
    assert (train["stage"], train["distill"]["target"]) == ("distillation", "teacher")
    assert not {"freeze_encoder_after", "losses", "perceptual_share"} & set(train)  # of other stages
    model, _ = resolved(flowmo, "distill", "--init", weights, "--set", "distill.steps=[2,4]", "sample.rho=1.5")
    assert (model["sampler"]["num_steps"], model["sampler"]["rho"]) == (2, 1.5)
    assert not Path("o").exists()


@pytest.mark.parametrize(
    ("more", "settings", "said"),
    [
        ((), ["distill.steps=[0]"], "distill.steps must be different numbers of at least 1, got [0]"),
        ((), ["distill.steps=[1,1]"], "distill.steps must be different numbers"),
        ((), ["distill.steps=[]"], "distill.steps must be different numbers"),
        ((), ["distill.target=both"], "distill.target must be one of teacher, image"),
        ((), ["distill.pixel_weight=-1"], "distill.pixel_weight must be at least 0"),
        ((), ["distill.pixel_weight=0", "sample.weight=0"], "nothing to minimise"),
        ((), ["distill.target=image", "distill.teacher_steps=8"], "leave out distill.teacher_steps"),
        ((), ["distill.teacher_steps=2", "distill.teacher_guidance=1", "distill.steps=[2]"], "nothing to learn"),
        ((), ["distill.teacher_steps=0"], "num_steps must be at least 1"),
        ((), ["sample.num_steps=2"], "set distill.steps"),
        ((), ["stage=mode_seeking"], "use flowmo posttrain or train"),
        ((), ["freeze_encoder_after=8"], "distillation trains the decoder alone"),
        (("--teacher", "other.safetensors"), [], "the teacher's tokens are others"),
        (("--teacher", "larger.safetensors"), [], "the teacher decodes to 64 pixels, the model to train to 32"),
        (("--teacher", "nowhere.safetensors"), [], "nowhere.safetensors"),
        (("--teacher", "other.safetensors"), ["distill.target=image"], "--teacher is of no use"),
    ],
)
def test_wrong_use_is_told_before_anything_is_trained(
    more: tuple[str, ...],
    settings: list[str],
    said: str,
    flowmo: Command,
    weights: Path,
    lpips: None,
    lively: Callable[[nn.Module], nn.Module],
) -> None:
    if "other.safetensors" in more:
        save_model(lively(FlowMo(tiny())), "other.safetensors")  # type: ignore[arg-type]
    if "larger.safetensors" in more:
        model = package.load(weights)
        larger = FlowMo(replace(model.config, image_size=64))
        larger.load_state_dict(model.state_dict())
        save_model(larger, "larger.safetensors")
    begin = ("--init", weights, *CHECKS, *more, "--set", *QUICK, *settings)
    result = flowmo("distill", CAT.parent, "o", *begin, model=False)
    assert result.code == 2
    assert said in result.err
    assert not Path("o").exists()


@pytest.mark.parametrize("target", ["teacher", "image"])
def test_old_token_files_are_decoded_in_one_pass(target: str, flowmo: Command, weights: Path, lpips: None) -> None:
    result = flowmo("tokenize", CAT, "--model", weights, "--out", "tokens", model=False)
    assert result.code == 0, result.err
    settings = ("--set", *QUICK, f"distill.target={target}", "sample.weight=0.5")
    result = flowmo("distill", CAT.parent, "o", "--init", weights, *CHECKS, *settings, model=False)
    assert result.code == 0, result.err
    assert ("teacher: sha256" in result.out) == (target == "teacher")
    log = [json.loads(line) for line in Path("o", "log.jsonl").read_text().splitlines()]
    first = next(line for line in log if "step" in line)
    assert first["total"] == pytest.approx(first["pixel"] + 0.5 * first["sample"], rel=1e-5)
    assert "flow" not in first
    result = flowmo("detokenize", "tokens", "--model", "o", "--out", "back", "--json", model=False)
    assert result.code == 0, result.err
    assert len(list(Path("back").glob("*.png"))) == 1
    student, teacher = package.load("o"), package.load(weights)
    assert student.config.sampler.num_steps == 1
    assert student.fingerprint() == teacher.fingerprint()
    assert not torch.equal(student.decoder.readout.weight, teacher.decoder.readout.weight)
