"""``--recipe short``: a schedule that follows from the length, a length that follows from the time, and lines that a
person can read."""

from __future__ import annotations

import json
import os
import re
import time
from pathlib import Path

import pytest
from run_support import finish, lines_of, start

from flowmo.cli.main import main
from flowmo.config import SamplerConfig
from flowmo.training import short as short_recipe
from flowmo.training.monitoring.logs import in_words
from flowmo.training.short import Validations, batch_in, length_in, short, validations_in, validations_of

QUICK = ["losses.perceptual=0", "precision=fp32", "workers=0"]


@pytest.mark.parametrize("images", [1_600, 16_000, 1_000_000])
def test_the_schedule_scales_with_the_length(images: int) -> None:
    config = short(images)
    levels = config.noise_levels
    assert config.images == images
    assert levels.curriculum_images == pytest.approx(0.4 * images, abs=8)
    assert levels.anneal_images == pytest.approx(0.15 * images, abs=8)
    assert config.cooldown_images == pytest.approx(0.25 * images, abs=8)
    assert levels.curriculum_images + levels.anneal_images < images - config.cooldown_images
    assert 5 <= images / config.validate_every <= 6
    assert images / config.batch_size / config.log_steps >= 100
    assert config.warmup_images <= 0.03 * images


def test_a_length_leaves_time_to_spare() -> None:
    assert length_in(100, 10, 16) == 848
    assert length_in(0.001, 1, 16) == 16  # never less than an update


def test_few_updates_are_of_smaller_batches() -> None:
    assert batch_in(15, 8, 1) == 4  # 102 images
    assert batch_in(15, 1, 8) == 8  # an image for each process
    assert batch_in(45, 8, 1) == 8
    assert batch_in(90, 8, 2) == 16


def train(data: Path, out: Path, *more: str) -> list[str]:
    return ["train", str(data), str(out), "--preset", "tiny", "--device", "cpu", *more]


def test_it_is_the_default_and_explicit_settings_win(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def resolved(*more: str) -> dict[str, object]:
        assert main([*train(data, tmp_path / "run", *more), "--dry-run"]) == 0
        text = capsys.readouterr().out
        return json.loads("{" + text.split("\n{", 1)[1])  # type: ignore[no-any-return]

    assert resolved("--set", "images=16000")["cooldown_images"] == 4000
    assert resolved("--set", "images=16000", "cooldown_images=32")["cooldown_images"] == 32
    assert resolved("--recipe", "none", "--set", "images=16000")["cooldown_images"] == 250_000
    assert resolved("--recipe", "published")["batch_size"] == 128
    assert resolved("--set", "images=64")["validate_every"] == 64  # once, at the end
    assert resolved("--set", "images=16000")["validate_every"] < 16000 / 3


def test_a_run_fits_its_time_and_goes_on_with_its_own_schedule(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    began = time.monotonic()
    assert main([*train(data, out, "--time-limit", "8s"), "--set", *QUICK]) == 0
    said = capsys.readouterr()
    assert f"preset tiny, recipe short, into {out}" in said.err
    assert "images fit the time" in said.err
    assert "so few images teach a model next to nothing" in said.err
    assert re.search(r"first update of \d+ images after", said.out)
    assert time.monotonic() - began < 60
    stored = json.loads((out / "config.json").read_text())["train"]
    assert stored["cooldown_images"] == pytest.approx(stored["images"] / 4, abs=8)
    assert (out / "model.safetensors").is_file()
    assert any("images_per_s" in line for line in lines_of(out))
    assert main([*train(data, out, "--time-limit", "8s"), "--set", *QUICK]) == 0  # not measured again
    assert json.loads((out / "config.json").read_text())["train"] == stored
    assert "measuring" not in capsys.readouterr().err


def test_lines_for_people_have_names_and_few_numbers() -> None:
    line = {
        "step": 20, "images": 320, "total": 1.25, "flow": 1.5, "perceptual": 0.0, "sample_entropy": 0.4,
        "codebook_entropy": 2.4, "commitment": 0.4, "parameter_norm": 47.0, "lr": 1e-4, "images_per_s": 18.76,
        "hours_left": 0.5, "memory_mb": 582.3, "skipped_steps": 0, "broken_images": 2,
    }  # fmt: skip
    assert in_words(line, 3200) == (
        "320 of 3,200 images (10%), loss 1.25, flow loss 1.5, 18.8 images/s, 30.0 min left, broken images 2"
    )
    assert in_words({"images": 8, "psnr": 20.0, "psnr_shuffled": 9.0}) == (
        "8 images, PSNR 20.00 dB, codes shuffled 9.00 dB"
    )


@pytest.mark.parametrize(
    ("seconds", "speed", "expected"), [(15, 8, (0, 0)), (120, 8, (1, 6)), (5400, 8, (6, 32)), (1200, 8, (6, 10))]
)
def test_validation_takes_a_small_share_of_the_time(seconds: float, speed: float, expected: tuple[int, int]) -> None:
    found = validations_in(seconds, speed, SamplerConfig())
    assert found == expected
    assert found.times * found.images * (31 + 2) / 3 / speed <= 0.07 * seconds
    config = short(16_000, validations=found.times)
    assert config.images / config.validate_every == max(1, found.times - 1)


def test_a_length_that_is_asked_for_is_validated_to_match() -> None:
    """Of 64 images, two at the end and not six times 32, which would take most of the time."""
    assert validations_of(64, SamplerConfig()) == Validations(1, 2)
    assert validations_of(100_000, SamplerConfig()) == Validations()
    few = validations_of(2_000, SamplerConfig())
    assert few.times == 1
    assert 2 < few.images < 32


def test_a_run_of_seconds_is_not_validated_and_goes_on_so(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(short_recipe, "validations_in", lambda *_: Validations(0, 0))
    out = tmp_path / "run"
    assert main([*train(data, out, "--time-limit", "4s"), "--set", *QUICK]) == 0
    assert f"flowmo reconstruct IMAGES --model {out} shows" in capsys.readouterr().err
    assert not any("psnr" in line for line in lines_of(out))
    assert main([*train(data, out, "--time-limit", "4s"), "--set", *QUICK]) == 0
    assert not any("psnr" in line for line in lines_of(out))
    assert (out / "model.safetensors").is_file()


@pytest.mark.parametrize("launcher", [(), ("--standalone", "--nproc-per-node", "2")])
def test_it_ends_near_its_limit_and_says_something_at_once(
    data: Path, tmp_path: Path, launcher: tuple[str, ...]
) -> None:
    """Its clock begins before PyTorch is imported; also two processes, which agree. The times need a quiet machine:
    FLOWMO_SLOW=1, which also gives it more of it."""
    limit = 15 if "FLOWMO_SLOW" in os.environ else 6
    out = tmp_path / "run"
    began = time.monotonic()
    process = start([*train(data, out, "--time-limit", f"{limit}s"), "--set", *QUICK], *launcher)
    assert process.stdout is not None
    first = process.stdout.readline()
    first_after = time.monotonic() - began
    said = first + finish(process)
    taken = time.monotonic() - began - first_after
    assert "flowmo train: loading PyTorch" in first
    assert said.count("images fit the time") == 1
    assert said.count("loading PyTorch") == 1
    stored = json.loads((out / "config.json").read_text())["train"]
    assert stored["images"] < 100_000
    assert (out / "model.safetensors").is_file()
    if "FLOWMO_SLOW" in os.environ:  # a busy machine takes a minute to import PyTorch
        assert first_after < (10 if launcher else 2)
        assert limit - 5 < taken < limit + 10
