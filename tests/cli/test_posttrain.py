"""``flowmo posttrain``: what it says before anything is trained, where it starts, and its settings (Section 3.3)."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from command_support import CAT, CHECKS, Command, resolved
from torch import nn

import flowmo as package
from flowmo.errors import WeightsError
from flowmo.perceptual import load_classifier
from flowmo.presets import tiny
from flowmo.tokenizer import FlowMo
from flowmo.weights import official_layout, save_model

QUICK = ("images=8", "batch_size=4", "micro_batch=2", "sample.num_steps=1", "sample.network_side=32", "workers=0",
         "warmup_images=0", "cooldown_images=0", "validate_every=8", "log_steps=1")  # fmt: skip


@pytest.fixture
def classifier() -> None:
    try:
        load_classifier()
    except WeightsError as error:
        pytest.skip(str(error))


def lines(folder: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in Path(folder, "log.jsonl").read_text().splitlines()]


def test_the_published_settings(flowmo: Command, released: Path) -> None:
    """D1-D4: 25,000 steps of 64 = 2 x 4 x 8 GPUs, half the rate, n = 8 at random levels, ResNet-50, no LPIPS term."""
    size = ("--num-tokens", 16, "--image-size", 32)
    _, train = resolved(flowmo, "posttrain", "--init", released, "--recipe", "published", *size)
    assert train["images"] == 64 * 25_000
    assert (train["batch_size"], train["micro_batch"], train["learning_rate"]) == (64, 4, 5e-5)
    assert (train["warmup_images"], train["cooldown_images"], train["gradient_clip"]) == (0, 0, None)
    assert (set(train["losses"]), train["code_dropout"]) == ({"entropy", "commitment"}, 0.1)
    assert not {"freeze_encoder_after", "distill", "perceptual_share"} & set(train)  # of other stages
    assert (train["ema_decay"], train["ema_every"]) == (0.9999, 10)
    sample = train["sample"]
    assert (sample["weight"], sample["mode"], sample["num_steps"], sample["grid"]) == (0.01, "chain", 8, "random")
    assert (sample["network"], sample["network_side"], sample["share"]) == ("resnet50", 224, 1.0)


@pytest.fixture
def released(tmp_path: Path) -> Path:
    """A file in the released format: averaged weights, and raw ones that are others."""
    layout = official_layout(tiny())
    average = {key: 0.05 * torch.randn(slot.shape) for key, slot in layout.items()}
    raw = {key: value + 0.01 for key, value in average.items()}
    path = tmp_path / "released.pth"
    torch.save({"total_steps": 1, "model_state_dict": raw, "model_ema_state_dict": average}, path)
    return path


def test_it_starts_from_the_average_or_from_raw_weights(flowmo: Command, released: Path, classifier: None) -> None:
    """The average keeps token files valid; the published recipe takes raw weights, whose codes are others (D4)."""
    size = ("--num-tokens", 16, "--image-size", 32)
    settings = ("--set", *QUICK, "sample.network=efficientnet_lite0")
    for out, more in (("a", ()), ("b", ("--recipe", "published"))):
        result = flowmo("posttrain", CAT.parent, out, "--init", released, *size, *CHECKS, *more, *settings, model=False)
        assert result.code == 0, result.err
    average, raw = (package.load(released, ema=ema, num_tokens=16, image_size=32) for ema in (True, False))
    assert package.load("a/model.safetensors").fingerprint() == average.fingerprint()
    assert package.load("b/model.safetensors").fingerprint() == raw.fingerprint() != average.fingerprint()


def test_raw_weights_of_a_run_are_in_its_checkpoints(flowmo: Command, weights: Path, classifier: None) -> None:
    quick = ("images=8", "batch_size=4", "losses.perceptual=0", "workers=0", "warmup_images=0", "cooldown_images=0")
    result = flowmo("train", CAT.parent, "run", "--preset", "tiny", "--set", *quick, "ema_decay=0.9", model=False)
    assert result.code == 0, result.err
    recipe = ("--recipe", "published", "--set", *QUICK, "sample.network=efficientnet_lite0")
    result = flowmo("posttrain", CAT.parent, "out", "--init", "run", *CHECKS, *recipe, model=False)
    assert result.code == 0, result.err
    assert package.load("out").fingerprint() != package.load("run").fingerprint()
    result = flowmo("posttrain", CAT.parent, "none", "--init", weights, *CHECKS, *recipe, model=False)
    assert result.code == 2
    assert "holds averaged weights, and raw ones are wanted" in result.err
    assert not Path("none").exists()
    checkpoint = next(Path("run").glob("checkpoint-*"))
    begin = ("--init", "run", "--resume", checkpoint, *CHECKS, "--set", *QUICK)
    result = flowmo("posttrain", CAT.parent, "resumed", *begin, model=False)
    assert result.code == 2
    assert "holds a run with other settings" in result.err
    assert "stage: mode_matching there" in result.err


@pytest.mark.parametrize(
    ("more", "settings", "said"),
    [
        ((), ["sample.num_steps=0"], "sample.num_steps must be at least 1, got 0"),
        ((), ["sample.weight=-1"], "sample.weight must be at least 0"),
        ((), ["sample.rho=0"], "sample.rho must be positive"),
        ((), ["sample.network=vgg"], "sample.network must be one of resnet50, efficientnet_lite0"),
        ((), ["stage=mode_matching"], "use flowmo train"),
        ((), ["freeze_encoder_after=8"], "freeze_encoder_after must be 0"),
        ((), ["losses.perceptual=0.1"], "losses.perceptual must be 0"),
        ((), ["batch_size=5"], "cannot be split"),
        (("--preset", "flowmo-mini-64"), [], "is not of the configuration flowmo-mini-64 (encoder: "),
        (("--network", "nowhere.pth"), [], "there is no file nowhere.pth"),
        ((), ["sample.network=resnet50"], "ResNet-50 (torchvision's IMAGENET1K_V1) are missing"),
    ],
)
def test_wrong_use_is_told_before_anything_is_trained(
    more: tuple[str, ...],
    settings: list[str],
    said: str,
    flowmo: Command,
    weights: Path,
    classifier: None,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.setenv("FLOWMO_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("FLOWMO_WEIGHTS_URL", raising=False)
    result = flowmo(
        "posttrain", CAT.parent, "o", "--init", weights, *CHECKS, *more, "--set", *QUICK, *settings, model=False
    )
    assert result.code == 2
    assert said in result.err
    assert not Path("o").exists()


@pytest.mark.parametrize("init", ["nowhere.safetensors", "flowmo-lo", "no-such-model", "damaged.safetensors"])
def test_weights_that_are_not_there(init: str, flowmo: Command, classifier: None) -> None:
    Path("damaged.safetensors").write_bytes(b"no weights")
    result = flowmo("posttrain", CAT.parent, "o", "--init", init, *CHECKS, "--set", *QUICK, model=False)
    assert result.code == 2
    assert not Path("o").exists()


def test_images_too_small_for_the_network(
    flowmo: Command, classifier: None, lively: Callable[[nn.Module], nn.Module]
) -> None:
    save_model(FlowMo(replace(tiny(), image_size=8)), "small.safetensors")
    result = flowmo(
        "posttrain", CAT.parent, "o", "--init", "small.safetensors", *CHECKS, "--set", *QUICK,
        "sample.network=lpips_vgg", model=False,
    )  # fmt: skip
    assert result.code == 2
    assert "needs images of at least 16 x 16 pixels" in result.err or "weights" in result.err
    assert not Path("o").exists()


@pytest.mark.parametrize(
    "settings",
    [
        ["sample.mode=one_step"],
        ["sample.num_steps=4"],
        ["sample.grid=shifted", "sample.num_steps=2", "sample.weight=1"],
    ],
    ids=" ".join,
)
def test_the_alternatives_of_table_7_are_settings(
    settings: list[str], flowmo: Command, weights: Path, classifier: None
) -> None:
    """The same network on the one-step estimate, other weights, other chains; each trains and keeps the code."""
    result = flowmo("posttrain", CAT.parent, "o", "--init", weights, *CHECKS, "--set", *QUICK, *settings, model=False)
    assert result.code == 0, result.err
    log = lines("o")
    assert all(line["sample"] > 0 for line in log if "step" in line)
    weight = 1.0 if "sample.weight=1" in settings else 0.01
    first = next(line for line in log if "step" in line)
    rest = first["total"] - first["flow"] - weight * first["sample"]
    quantizer = 0.0025 * (first["sample_entropy"] - first["codebook_entropy"]) + 0.000625 * first["commitment"]
    assert rest == pytest.approx(quantizer, abs=1e-4)
    before, after = package.load(weights), package.load("o")
    assert after.fingerprint() == before.fingerprint()
    assert not torch.equal(after.decoder.readout.weight, before.decoder.readout.weight)
