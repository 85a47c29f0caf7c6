"""Every stage on a model that begins as the best closed-form code (O12): it goes, at all rates, and the error falls."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from run_support import lines_of, log_of
from torch import Tensor

from flowmo.cli.main import main
from flowmo.data import to_uint8
from flowmo.tokenizer import FlowMo
from flowmo.weights import load_model

SMALL = [
    *("encoder.patch_size=8", "encoder.depth=1", "encoder.width=64", "encoder.heads=1", "transform.patch_size=8"),
    *("transform.class_bits=1", "transform.num_components=64"),
    *(
        "decoder.patch_size=8",
        "decoder.depth=2",
        "decoder.width=64",
        "decoder.heads=1",
        "image_size=64",
        "num_tokens=64",
    ),
]
SETTINGS = [
    *("batch_size=8", "learning_rate=4e-4", "warmup_images=80", "gradient_clip=1.0", "ema_decay=0.9", "workers=0"),
    *("precision=fp32", "log_steps=1", "validate_every=100000", "weight_normalization=false", "code_dropout=0"),
    *("rates.full_share=0.4", "rates.often_share=0.25"),
]
ALL_NOISE = ["noise_levels.curriculum_mass=1", "noise_levels.curriculum_images=1000000000"]


@pytest.fixture(scope="module")
def images(photographs: Callable[[str, int], Tensor], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Photographs of 64 pixels, as an array."""
    path = tmp_path_factory.mktemp("transform") / "photographs.npy"
    enlarged = torch.nn.functional.interpolate(photographs("train", 128), size=(64, 64), mode="bicubic").clamp(-1, 1)
    np.save(path, to_uint8(enlarged).permute(0, 2, 3, 1).numpy())
    return path


@pytest.fixture(scope="module")
def start(images: Path) -> Path:
    """The code of a quarter of the images: training on all of them has something to gain."""
    out = images.with_name("start.safetensors")
    assert main(["fit-transform", str(images), "--count", "32", "--out", str(out), "--set", *SMALL]) == 0
    return out


@pytest.fixture(scope="module")
def crops(images: Path, start: Path) -> Path:
    """The folder of a run on crops of 32 pixels, squared error at t = 1, with Muon."""
    out = images.with_name("crops")
    settings = [*ALL_NOISE, "optimizer=muon", "learning_rates.readout=0.5", "losses.perceptual=0", "images=960"]
    assert train(images, out, start, *settings, "crop_size=32", "cooldown_images=640") == 0
    return out


def train(images: Path, out: Path, init: Path, *settings: str, flags: tuple[str, ...] = ()) -> int:
    command = ["train", str(images), str(out), "--recipe", "none", "--init", str(init), "--device", "cpu", *flags]
    return main([*command, "--set", *SETTINGS, *settings])


def decoder_only(command: str, images: Path, out: Path, init: Path, *settings: str, count: int = 8) -> int:
    checks = ["--validation-count", str(count), "--no-rfid", "--device", "cpu", "--validation", str(images)]
    return main([command, str(images), str(out), "--init", str(init), *checks, "--set", *SETTINGS, *settings])


@torch.no_grad()
def error(model: FlowMo, images: Path, bits: int | None = None, seed: int = 0) -> float:
    x = torch.from_numpy(np.load(images)[:64]).permute(0, 3, 1, 2).float() / 127.5 - 1
    again = model.detokenize(model.tokenize(x, bits), seed=list(range(seed, seed + len(x))))
    return float((again - x).square().mean())


def test_crops_make_it_better(images: Path, start: Path, crops: Path) -> None:
    """At all bits than the closed-form code; lower rates, seen less, stay near theirs."""
    before, after = load_model(start), load_model(crops / "model.safetensors")
    errors = {bits: (error(before, images, bits), error(after, images, bits)) for bits in (9, 18, None)}
    assert errors[None][1] < errors[None][0], errors
    assert all(now < 1.03 * then for then, now in errors.values()), errors
    assert after.fingerprint() == before.fingerprint()


def test_larger_images_go_on_from_crops_and_cool_down(images: Path, crops: Path, tmp_path: Path) -> None:
    out = tmp_path / "whole"
    settings = [*ALL_NOISE, "losses.perceptual=0", "images=2000", "cooldown_images=0", "learning_rate=5e-4"]
    assert train(images, out, crops, *settings, flags=("--time-limit", "3s")) == 0
    reached = max(line["images"] for line in log_of(out).values())
    assert reached < 2000
    assert train(images, out, crops, *settings, flags=("--cooldown", "160")) == 0
    lines = log_of(out)
    last = lines[max(lines)]
    assert last["images"] == reached + 160
    assert last["lr"] < 1e-4
    assert error(load_model(out / "model.safetensors"), images) < error(load_model(crops / "model.safetensors"), images)


def test_the_weight_of_the_squared_error_is_that_of_the_sum(images: Path, crops: Path, tmp_path: Path) -> None:
    settings = [*ALL_NOISE, "losses.perceptual=0", "images=8", "cooldown_images=0"]
    totals = {}
    for weight in (1, 3):
        out = tmp_path / str(weight)
        assert (
            train(images, out, crops, *settings, f"losses.flow={weight}", "losses.entropy=0", "losses.commitment=0")
            == 0
        )
        (line,) = log_of(out).values()
        totals[weight] = line["total"]
        assert line["total"] == pytest.approx(weight * line["flow"])
    assert totals[3] == pytest.approx(3 * totals[1])


@pytest.mark.parametrize("target", ["teacher", "image"])
def test_one_step_distillation(target: str, images: Path, crops: Path, tmp_path: Path) -> None:
    """Of the image's squared error, whose samples of one step and any rate come nearer; and of a teacher of 4 steps."""
    teacher = ["distill.teacher_steps=4", "distill.teacher_rho=1"] if target == "teacher" else []
    settings = [f"distill.target={target}", *teacher, "sample.weight=0"]
    out = tmp_path / "student"
    settings += ["images=320", "cooldown_images=240", "optimizer=muon", "learning_rate=2e-4"]
    assert decoder_only("distill", images, out, crops, *settings) == 0
    model = load_model(out / "model.safetensors")
    assert model.fingerprint() == load_model(crops / "model.safetensors").fingerprint()
    assert model.config.sampler.num_steps == 1
    before = load_model(crops / "model.safetensors")
    assert not torch.equal(model.decoder.readout.weight, before.decoder.readout.weight)
    if target == "image":
        assert error(model, images) < error(before, images)


def test_post_training_of_short_chains(images: Path, crops: Path, tmp_path: Path) -> None:
    """With weight on d_perc it ends nearer by d_perc than with none, whatever the rates and the noise: the same run."""
    distances = {}
    for weight in (0, 1000):
        out = tmp_path / f"post-{weight}"
        settings = ["sample.num_steps=1", "sample.grid=shifted", "sample.network_side=32", f"sample.weight={weight}"]
        settings += [*ALL_NOISE, "sample.patience=0", "images=400", "cooldown_images=200", "learning_rate=5e-5"]
        assert decoder_only("posttrain", images, out, crops, *settings, count=64) == 0  # of 8 the distance is noisy
        _, last = (line for line in lines_of(out) if "distance" in line)
        distances[weight] = last["distance"]
    assert distances[1000] < distances[0]
    assert json.loads((out / "config.json").read_text())["train"]["rates"]["full_share"] == 0.4
