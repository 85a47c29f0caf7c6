"""The ablation "encoder trained with MSE" (Table 4; F5) as two commands, and what a recipe makes of a run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from command_support import CAT, Command
from PIL import Image

import flowmo as package

QUICK = ("losses.perceptual=0", "batch_size=8", "warmup_images=0", "cooldown_images=0", "log_steps=2", "workers=0")


def numbers(folder: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in Path(folder, "log.jsonl").read_text().splitlines()]


def test_regression_then_stage_1a_on_the_frozen_code(flowmo: Command) -> None:
    common = ("--set", *QUICK, "images=48", "validate_every=48")
    first = flowmo("train", CAT.parent, "a", "--preset", "tiny", "--stage", "autoencode", *common, model=False)
    assert first.code == 0, first.err
    log = numbers("a")
    losses = [line["reconstruction"] for line in log if "reconstruction" in line]
    assert losses[-1] < losses[0]
    assert "flow" not in log[0]
    assert {"psnr", "psnr_shuffled", "psnr_thumbnail"} <= set(log[-1])
    assert "psnr_one_step" not in log[-1]  # no sampler fits this model
    with Image.open("a/pictures/0000000048.png") as sheet:
        margin = sheet.width - 8 * 32
        assert (margin > 40, sheet.height) == (True, 3 * 32)
        titles = np.asarray(sheet.convert("L"))[:, :margin].reshape(3, 32, margin)
        assert (titles < 128).any(axis=(1, 2)).all()  # each row has its name

    second = flowmo("train", CAT.parent, "b", "--init", "a/model.safetensors", "--freeze-encoder", *common, model=False)
    assert second.code == 0, second.err
    log = numbers("b")
    losses = [line["flow"] for line in log if "flow" in line]
    assert losses[-1] < losses[0]
    assert "psnr_one_step" in log[-1]
    before, after = package.load("a/model.safetensors"), package.load("b/model.safetensors")
    assert after.fingerprint() == before.fingerprint()  # token files of the one are decoded by the other
    moved = [not a.equal(b) for a, b in zip(before.decoder.parameters(), after.decoder.parameters(), strict=True)]
    assert sum(moved) > 0.9 * len(moved)


def test_recipes_are_where_a_run_starts_from(flowmo: Command) -> None:
    def resolved(*arguments: object) -> tuple[Any, Any]:
        result = flowmo("train", "d", "o", *arguments, "--dry-run", model=False)
        assert result.code == 0, result.err
        decoder = json.JSONDecoder()
        model, end = decoder.raw_decode(result.out)
        return model, decoder.raw_decode(result.out[end:].lstrip())[0]

    model, train = resolved("--preset", "flowmo-hi", "--recipe", "published", "--set", "micro_batch=4")
    assert (train["images"], train["micro_batch"], train["learning_rate"]) == (102_400_000, 4, 1e-4)
    assert model["encoder"]["base_width"] is model["decoder"]["base_width"] is None
    model, other = resolved("--preset", "flowmo-hi", "--recipe", "mup", "--model", "decoder.base_width=384")
    assert other == train | {"micro_batch": 8}
    assert (model["encoder"]["base_width"], model["decoder"]["base_width"]) == (768, 384)


def test_a_recipe_does_not_make_another_function_of_weights(flowmo: Command, weights: Path) -> None:
    for recipe, code in (("mup", 2), ("published", 0)):
        result = flowmo("train", "d", "o", "--init", weights, "--recipe", recipe, "--dry-run", model=False)
        assert result.code == code
        assert ("weights that were trained without one" in result.err) == (code == 2)
