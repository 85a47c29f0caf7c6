"""flowmo bench train: what is measured here, and what is estimated for machines that are not."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from command_support import PICTURES, Command

from flowmo.presets import flowmo_lo, tiny
from flowmo.profiling.flops import flops_per_image
from flowmo.tokenizer import FlowMo

SHALLOW = ("--model", "encoder.depth=1", "decoder.depth=1")
ALEX = ("--set", "perceptual_network=alex", "precision=fp32", "workers=1")


def test_a_preset_that_fits_is_measured(flowmo: Command) -> None:
    more = ("--micro-batch", 2, 4, "--repeats", 1, "--gpus", 1, "--out", "b.json", "--json", *ALEX)
    result = flowmo("bench", "train", PICTURES[0].parent, "--preset", "tiny", *more, model=False)
    assert result.code == 0, result.err
    content = result.json
    assert content == json.loads(Path("b.json").read_text())
    assert content["parameters"] == sum(p.numel() for p in FlowMo(tiny()).parameters())
    assert content["flops_per_image"] == flops_per_image(tiny(), "alex")._asdict()
    assert content["loader"]["images_per_second"] > 1
    assert content["machine"]["torch"] == torch.__version__
    assert [m["micro_batch"] for m in content["measured"]] == [2, 4]
    for m in content["measured"]:
        speed = m["speed"]
        assert speed["images_per_second"] == pytest.approx(m["micro_batch"] / speed["seconds"])
        assert 0 < speed["utilisation"] < speed["utilisation_with_perceptual"] < 1.5
        assert speed["utilisation"] == pytest.approx(
            speed["images_per_second"] * content["flops_per_image"]["training"] / content["ceiling_flops"]
        )
        assert m["estimate"] == pytest.approx(speed["memory"], rel=0.15)
        assert m["why"] is None
    assert "--force" in flowmo("bench", "train", "--preset", "tiny", "--out", "b.json", model=False).err


def test_a_preset_that_does_not_fit_is_estimated(flowmo: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a machine with a gigabyte free the large model is not even made."""
    monkeypatch.setattr("flowmo.profiling.training.available_memory", lambda device: 2**30)
    monkeypatch.setattr("flowmo.profiling.training.measure_updates", lambda *_: pytest.fail("was measured"))
    more = ("--micro-batch", 1, "--gpus", 8, *SHALLOW, "--set", "workers=0", "batch_size=8")
    result = flowmo("bench", "train", "--preset", "flowmo-lo", *more, model=False)
    assert result.code == 0, result.err
    assert "M parameters" in result.out
    assert "8 x ddp" in result.out
    assert "8 x fsdp" in result.out
    assert "1 images were not measured" in result.out
    assert "more than is free" in result.out


def test_the_published_run_is_planned_without_a_gpu(flowmo: Command) -> None:
    more = ("--recipe", "published", "--estimate-only", "--json")
    content = flowmo("bench", "train", "--preset", "flowmo-lo", *SHALLOW, *more, model=False).json
    lo = flowmo_lo()
    shallow = replace(lo, encoder=replace(lo.encoder, depth=1), decoder=replace(lo.decoder, depth=1))
    assert "measured" not in content
    assert content["flops_per_image"] == flops_per_image(shallow)._asdict()
    rows = {(p["processes"], p["strategy"]): p for p in content["estimate"]}
    assert list(rows) == [(1, "ddp"), (8, "ddp"), (8, "fsdp")]
    assert {p["micro_batch"] for p in rows.values()} == {8}
    assert content["train"]["precision"] in ("bf16", "fp32")  # chosen once, and kept beside the numbers
    ddp, fsdp = rows[8, "ddp"]["memory"], rows[8, "fsdp"]["memory"]
    assert ddp["weights"] == 4 * content["parameters"]
    assert ddp["optimizer"] == 2 * ddp["weights"]
    assert fsdp["optimizer"] == pytest.approx(ddp["optimizer"] / 8, rel=1e-6)
    assert fsdp["total"] < ddp["total"]


def test_numbers_of_gpus_that_cannot_share_the_batch_are_said_and_the_others_estimated(flowmo: Command) -> None:
    """The command of docs/TRAINING.md: 128 images in micro-batches of 8 are too few for 64 GPUs."""
    more = ("--preset", "flowmo-lo", *SHALLOW, "--recipe", "published", "--gpus", 1, 8, 64, "--estimate-only")
    result = flowmo("bench", "train", *more, model=False)
    assert result.code == 0, result.err
    assert [line.split()[0] for line in result.out.splitlines() if " x " in line] == ["1", "8", "8"]
    assert "64 GPUs were left out: batch_size 128 cannot be split over 64 processes" in result.out
    content = flowmo("bench", "train", *more, "--json", model=False).json
    assert [(p["processes"], p["strategy"]) for p in content["estimate"]] == [(1, "ddp"), (8, "ddp"), (8, "fsdp")]
    assert [c["processes"] for c in content["cannot_share"]] == [64]
    assert "make it a multiple of 512" in content["cannot_share"][0]["why"]


def test_fifty_thousand_images_of_lo_take_less_than_an_hour_on_eight_gpus(flowmo: Command) -> None:
    content = flowmo("bench", "evaluate", "--gpus", 1, 8, "--json", model=False).json
    flops = flops_per_image(flowmo_lo(), None)
    assert content["passes"] == 31
    assert content["flops_per_image"] == flops.encoder + 31 * flops.decoder
    assert content["seconds"] == pytest.approx(50_000 * content["flops_per_image"] / (0.35 * 989e12))
    assert [row["hour"] for row in content["rows"]] == [False, True]
    assert "flowmo-lo, 50,000 images" in flowmo("bench", "evaluate", model=False).out
    assert flowmo("bench", "evaluate", "--utilisation", 0, model=False).code == 2


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--preset", "nothing"], "there are flowmo-lo"),
        (["--gpus", "3"], "cannot be split over 3 processes"),
        (["--set", "batch=3"], "did you mean"),
        (["no-such-folder", "--preset", "tiny"], "no-such-folder"),
    ],
)
def test_wrong_use_of_it(flowmo: Command, arguments: list[str], words: str) -> None:
    result = flowmo("bench", "train", *arguments, model=False)
    assert result.code == 2
    assert words in result.err
