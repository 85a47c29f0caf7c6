"""A continuous latent (Table 3; F6): it trains on real pictures, and what needs tokens refuses before any work."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from command_support import CAT, Command

import flowmo as package
from flowmo.config import QuantizerConfig
from flowmo.errors import ConfigError
from flowmo.integrations.app import App
from flowmo.presets import flowmo_continuous, flowmo_lo, tiny
from flowmo.tokenizer import FlowMo
from flowmo.weights import save_model

QUICK = ("losses.perceptual=0", "batch_size=8", "warmup_images=0", "cooldown_images=0", "log_steps=2", "workers=0")
MODEL = ("quantizer.kind=continuous", "quantizer.normalize=latent", "prediction=clean", "initial_latent=learned")


def log_of(folder: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in Path(folder, "log.jsonl").read_text().splitlines()]


def test_it_trains_and_every_later_stage_takes_it(flowmo: Command) -> None:
    """With noise sync; then Stage 1B, distillation, reconstruction and evaluation of the same weights."""
    settings = ("--set", *QUICK, "images=1600", "validate_every=1600", "learning_rate=2e-3", "noise_sync=0.1")
    settings += ("noise_levels.pure_noise_mass=0.5", "ema_horizon=0.1")
    first = flowmo(
        "train", CAT.parent, "a", "--recipe", "none", "--preset", "tiny", "--model", *MODEL, *settings, model=False
    )
    assert first.code == 0, first.err
    log = log_of("a")
    assert log[-1]["psnr"] > log[-1]["psnr_shuffled"] + 2  # by its code, not by the mean picture
    losses = [line["flow"] for line in log if "flow" in line]
    assert losses[-1] < 0.7 * losses[0]
    weights = "a/model.safetensors"
    assert package.load(weights).config.quantizer.normalize == "latent"

    again = flowmo("reconstruct", CAT, "--out", "pictures", "--json", "--model", weights, model=False)
    assert again.code == 0, again.err
    row = json.loads(again.out)["pictures"][0]
    assert row["payload_bytes"] is row["file_bytes"] is row["bits_per_pixel"] is None
    assert row["psnr"] > 5
    table = flowmo("reconstruct", CAT, "--out", "table", "--model", weights, model=False)
    assert "n/a" in table.out

    few = ("--validation-count", 2, "--no-rfid", "--set", "images=8", "batch_size=4", "micro_batch=4", "workers=0")
    few += ("validate_every=8", "log_steps=1", "sample.weight=0")
    for command in ("posttrain", "distill"):
        after = flowmo(command, CAT.parent, command, "--init", weights, *few, model=False)
        assert after.code == 0, after.err
        assert log_of(command)[-1]["psnr"] > 5
        assert package.load(f"{command}/model.safetensors").fingerprint() == package.load(weights).fingerprint()
    measured = flowmo("evaluate", "distill", CAT.parent, "--metrics", "psnr", "--json", model=False)
    assert measured.code == 0, measured.err
    assert "payload_bytes" not in measured.out


@pytest.fixture
def continuous(tmp_path: Path) -> Path:
    path = tmp_path / "continuous.safetensors"
    save_model(FlowMo(replace(tiny(), quantizer=QuantizerConfig("continuous"))), path)
    return path


@pytest.mark.parametrize(
    "command",
    [
        ("tokenize", CAT, "--out", "o", "--model"),
        ("tokenize", CAT.parent, "--shard", "o.shard", "--model"),
        ("detokenize", CAT, "--out", "o", "--model"),
        ("gallery", CAT, "--out", "o", "--models"),
        ("compare", CAT.parent, "--out", "o", "--models"),
        ("train-generator", "none", "o", "--tokenizer"),
        ("generate", "--count", 1, "--out", "o", "--tokenizer"),
        ("bench", "encode", "--model"),
        ("bench", "decode", "--model"),
        ("bench", "device", "--model"),
    ],
    ids=lambda command: " ".join(map(str, command[:2])) if command[0] == "bench" else command[0],
)
def test_what_needs_tokens_refuses_before_any_work(flowmo: Command, continuous: Path, command: tuple[Any, ...]) -> None:
    result = flowmo(*command, continuous, model=False)
    assert result.code == 2
    assert 'quantizer "continuous" has no tokens' in result.err
    assert not Path("o").exists()


@pytest.mark.parametrize(
    "command",
    [
        ("likelihood", "MODEL", CAT.parent, "--count", 2, "--steps", 1, "--num-probes", 1, "--out", "o"),
        ("figure", "variance", CAT.parent, "--count", 2, "--steps", 1, "--out", "o", "--model", "MODEL"),
        ("figure", "sampler-grid", CAT.parent, "--count", 2, "--steps", 1, "--rho", 1, "--guidance", 1, "--out", "o",
         "--model", "MODEL"),
        ("figure", "discoloration", CAT.parent, "--count", 2, "--steps", 1, "--out", "o", "--models", "MODEL"),
        ("figure", "rate-distortion-perception", CAT.parent, "--count", 4, "--steps", 1, "--scales", 1, "--perception",
         "fd_efflite0", "--out", "o", "--models", "MODEL"),
        ("info", "MODEL"),
    ],
    ids=lambda command: " ".join(map(str, command[:2])) if command[0] == "figure" else command[0],
)  # fmt: skip
def test_what_needs_no_tokens_works(flowmo: Command, continuous: Path, command: tuple[Any, ...]) -> None:
    result = flowmo(*(continuous if word == "MODEL" else word for word in command), model=False)
    assert result.code == 0, result.err
    assert command[0] == "info" or list(Path("o").glob("*.json"))


def test_the_preset_is_table_3s() -> None:
    """FlowMo-Lo's network with 256 tokens of 16 numbers, normalised, and no integers; noise sync is the run's (F6)."""
    config = flowmo_continuous()
    lo = flowmo_lo()
    assert (config.num_tokens, config.bits_per_token, config.quantizer.kind) == (256, 16, "continuous")
    assert (config.encoder, config.decoder, config.image_size) == (lo.encoder, lo.decoder, 256)
    small = FlowMo(replace(tiny(), bits_per_token=16, bits_per_group=16, quantizer=config.quantizer))
    assert not small.has_tokens
    code = small.codes(torch.rand(2, 3, 32, 32) * 2 - 1)
    assert code.shape == (2, 16, 16)
    torch.testing.assert_close(code.square().mean(-1), torch.ones(2, 16), atol=1e-2, rtol=0)


def test_the_app_takes_models_with_tokens_alone() -> None:
    with pytest.raises(ConfigError, match="has no tokens"):
        App([FlowMo(replace(tiny(), quantizer=QuantizerConfig("continuous")))])
