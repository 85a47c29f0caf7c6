"""``--precision`` and ``--compile`` of the commands that run a model over a data set."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from command_support import CAT, Command

from flowmo.codec import read_shard
from flowmo.coding.data_set import CodingJob
from flowmo.data import open_images

FOLDER = CAT.parent  # eight pictures
QUICK = ("--metrics", "psnr", "ssim", "code", "--steps", 3, "--guidance", 1.5, "--limit", 5, "--batch-size", 2)


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLOWMO_CACHE", str(tmp_path / "cache"))


def evaluated(flowmo: Command, weights: Path, out: str, *more: object) -> dict:
    result = flowmo("evaluate", weights, FOLDER, *QUICK, "--out", out, *more, model=False)
    assert result.code == 0, result.err
    return json.loads(Path(out, "small-standard.json").read_text())


def test_evaluation_in_half_precision_is_of_the_same_model_and_says_so(flowmo: Command, weights: Path) -> None:
    full = evaluated(flowmo, weights, "full")
    half = evaluated(flowmo, weights, "half", "--precision", "bf16")
    assert half["models"] == full["models"]
    assert half["content"]["precision"] == "bf16"
    assert "precision" not in full["content"]
    ours, theirs = half["content"]["metrics"], full["content"]["metrics"]
    assert ours["psnr"] != theirs["psnr"]
    assert ours["psnr"] == pytest.approx(theirs["psnr"], abs=0.5)
    # one does not pass for the other
    refused = flowmo("evaluate", weights, FOLDER, *QUICK, "--out", "full", "--precision", "bf16", model=False)
    assert refused.code == 2
    assert "other weights, pictures, settings" in refused.err


def test_compiled_evaluation_sees_one_shape_and_finds_the_same(
    flowmo: Command, weights: Path, compiled_shapes: list[tuple[str, tuple[int, ...]]]
) -> None:
    """Five pictures in batches of two, with guidance in some steps, which doubles a batch."""
    plain = evaluated(flowmo, weights, "plain")
    assert not compiled_shapes
    compiled = evaluated(flowmo, weights, "compiled", "--compile")
    assert compiled["content"]["compiled"] is True
    sizes = {name: {shape[0] for n, shape in compiled_shapes if n == name} for name, _ in compiled_shapes}
    assert sizes == {"Encoder.forward_blocks": {2}, "Decoder.forward_blocks": {2, 4}}
    for name, value in plain["content"]["metrics"].items():
        assert compiled["content"]["metrics"][name] == pytest.approx(value, rel=1e-3, abs=1e-3)


def test_a_shard_in_half_precision_is_of_the_same_encoder(
    flowmo: Command, weights: Path, compiled_shapes: list[tuple[str, tuple[int, ...]]]
) -> None:
    more = ("--batch-size", 3, "--model", weights)
    for name, flags in (("full", ()), ("half", ("--precision", "bf16", "--compile"))):
        assert flowmo("tokenize", FOLDER, "--out", f"{name}.shard", *more, *flags, model=False).code == 0
    full, half = read_shard("full.shard"), read_shard("half.shard")
    assert half.fingerprint == full.fingerprint
    same = (half.tokens.indices == full.tokens.indices).float().mean()
    assert 0.5 < same < 1, "a group of nine signs is equal where none of them was near 0"
    assert {shape[0] for _, shape in compiled_shapes} == {3}


def test_parts_of_a_shard_in_other_precisions_are_not_mixed() -> None:
    job = CodingJob(open_images(FOLDER), (32, 32))
    assert job.key(1) != replace(job, precision="bf16").key(1)
