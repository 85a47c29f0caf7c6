"""Early stopping of Stage 1B (Section 3.3, A.2; D3): its rule, and a real run that hacks its reward."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from flowmo.data import BatchLoader, open_images
from flowmo.errors import WeightsError
from flowmo.evaluation.validation import make_sampler_validation
from flowmo.flow import ThickTailedLogitNormal
from flowmo.perceptual import load_distance
from flowmo.presets import tiny
from flowmo.stages import LossWeights, draw, mode_matching_loss
from flowmo.tokenizer import FlowMo
from flowmo.training import Log, Run, SampleLossConfig, World, assemble, read_newest
from flowmo.training.configuration.recipes import post_training
from flowmo.training.monitoring.early_stopping import best, hacks_reward, validations_of, verdict
from flowmo.training.start import TOKENIZER
from flowmo.weights import load_model, read_about


def check(images: int, distance: float, psnr: float, lpips: float, rfid: float) -> dict[str, float]:
    return {"images": images, "distance": distance, "psnr": psnr, "lpips": lpips, "rfid": rfid}


START = check(0, 3.0, 20.0, 0.30, 50.0)
BETTER = check(10, 2.0, 20.5, 0.25, 40.0)
HACKED = check(20, 1.0, 19.0, 0.28, 45.0)
WORSE = check(20, 2.5, 19.0, 0.28, 45.0)


@pytest.mark.parametrize(
    ("now", "reference", "expected"),
    [
        (BETTER, START, False),
        (HACKED, BETTER, True),
        (WORSE, BETTER, False),  # the distance got no better either: that is something else
        (HACKED | {"psnr": 21.0}, BETTER, True),  # two of three are worse
        (HACKED | {"psnr": 21.0, "lpips": 0.2}, BETTER, False),
        (BETTER, BETTER, False),
    ],
)
def test_what_reward_hacking_is(now: Mapping, reference: Mapping, expected: bool) -> None:
    assert hacks_reward(now, reference) is expected


def test_what_was_not_measured_does_not_count() -> None:
    def without(numbers: Mapping, *names: str) -> dict:
        return {name: value for name, value in numbers.items() if name not in names}

    assert hacks_reward(without(HACKED, "rfid", "lpips"), without(BETTER, "rfid", "lpips"))
    assert not hacks_reward(
        without(HACKED, "rfid") | {"psnr": 21.0}, without(BETTER, "rfid")
    )  # one of two is no majority
    assert not hacks_reward({"distance": 1.0}, {"distance": 2.0})


def test_it_stops_after_so_many_in_a_row() -> None:
    later = HACKED | {"images": 30}
    assert verdict([START, BETTER, HACKED], 2) is None
    reason = verdict([START, BETTER, HACKED, later], 2)
    assert reason == (
        "stopped early, reward hacking since 10 images "
        "(distance 2 -> 1, rfid 40 -> 45, lpips 0.25 -> 0.28, psnr 20.5 -> 19)"
    )
    assert verdict([START, BETTER, HACKED, WORSE | {"images": 30}], 2) is None
    assert verdict([START, BETTER, HACKED, later], 3) is None
    assert verdict([START, BETTER, HACKED], 1) is not None
    assert verdict([START, BETTER, HACKED, later], 0) is None
    assert verdict([START], 1) is None


def test_the_best_is_that_of_the_lowest_rfid() -> None:
    assert best([START, BETTER, HACKED]) == BETTER
    assert best([START, BETTER, HACKED | {"rfid": 40.0}]) == BETTER  # the first of equals
    lpips = [{k: v for k, v in numbers.items() if k != "rfid"} for numbers in (START, BETTER | {"lpips": 0.4}, HACKED)]
    assert best(lpips) == lpips[2]
    assert best([{"distance": 1.0, "psnr": p, "images": p} for p in (3.0, 5.0, 4.0)])["images"] == 5.0


def test_checks_are_found_in_the_log(tmp_path: Path) -> None:
    lines = [START, {"images": 5, "total": 1.0}, BETTER]
    (tmp_path / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert validations_of(tmp_path / "log.jsonl") == [START, BETTER]
    assert validations_of(tmp_path / "none.jsonl") == []


def begun(images: Tensor) -> FlowMo:
    """A model that has learned the rough colours from pure noise alone."""
    torch.manual_seed(0)
    model = FlowMo(replace(tiny(), sampler=replace(tiny().sampler, num_steps=2, rho=1.0, guidance_scale=1.0)))
    optimizer = torch.optim.Adam(model.parameters(), 2e-3)
    generator = torch.Generator().manual_seed(0)
    for k in range(80):
        rows = images[8 * k % 96 :][:8]
        draws = draw(rows, ThickTailedLogitNormal(0.0, 0.0, 1.0, 0.6), 0.0, generator)
        loss = mode_matching_loss(model, rows, draws, LossWeights(perceptual=0.0)).total
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return model


def test_a_run_that_hacks_its_reward_is_stopped(
    data: Path, photographs: Callable[[str, int], Tensor], tmp_path: Path
) -> None:
    """Nothing but a classifier's logits, at a great rate: they come closer while the pictures go. The best weights are
    those from before, and the same run again has nothing to do."""
    try:
        network, _ = load_distance("efficientnet_lite0", None, 64)
    except WeightsError as error:
        pytest.skip(str(error))
    config = replace(
        post_training(), images=800, batch_size=8, micro_batch=8, learning_rate=5e-3, warmup_images=0,
        cooldown_images=0, validate_every=80, ema_decay=0.0, precision="fp32", workers=0, log_steps=100,
        sample=SampleLossConfig(weight=1000.0, num_steps=2, grid="shifted", network_side=64, patience=2),
    )  # fmt: skip
    check = make_sampler_validation(photographs("validation", 16), tmp_path / "pictures", network)
    start = begun(photographs("train", 96))
    said: list[str] = []

    def run(model: FlowMo) -> tuple[bool, int, str]:
        step, ready, state, _ = assemble(model, config, World(), network, read_newest(tmp_path))
        log = Log(tmp_path, state.images_seen, said.append, tensorboard=False)
        run = Run(tmp_path, config, step, TOKENIZER, ready, state, log=log, validation=check, patience=2)
        outcome = run.train(BatchLoader(open_images(str(data)), 8, 32, 0, start=state.images_seen, workers=0))
        return outcome.finished, outcome.images_seen, outcome.reason

    finished, seen, reason = run(start)
    checks = validations_of(tmp_path / "log.jsonl")
    assert finished
    assert seen < 800
    assert reason.startswith("stopped early, reward hacking since")
    chosen, last = best(checks), checks[-1]
    assert last["distance"] < chosen["distance"]
    assert last["psnr"] < chosen["psnr"]
    about = read_about(tmp_path / "best.safetensors")
    assert about == {"weights": "EMA, best validation"} | chosen
    weights = load_model(tmp_path / "best.safetensors")
    assert check(weights, 0)["psnr"] == pytest.approx(chosen["psnr"], abs=0.05)
    assert run(FlowMo(start.config)) == (True, seen, reason)
