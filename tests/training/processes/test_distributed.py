"""Two real processes under torchrun against one: the same losses, the same weights, checkpoints that either reads."""

from __future__ import annotations

import os
import signal
import time
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from run_support import (
    BATCH,
    SELDOM,
    checkpoints_of,
    command,
    finish,
    lines_of,
    log_of,
    start,
    start_script,
    start_several,
    wait_for_step,
)

import warm_python
from flowmo import samples
from flowmo.cli.main import main
from flowmo.data import BatchLoader, open_images
from flowmo.presets import tiny
from flowmo.tokenizer import FlowMo
from flowmo.training import TrainConfig, TrainState, World
from flowmo.training.checkpoints.checkpoint import read_checkpoint

PHOTO = samples.paths()[0]
TWO = ("--standalone", "--nproc-per-node", "2")
SHORT = {"images": 64, "cooldown_images": 16, "gradient_clip": 1.0, "validate_every": 48, "keep": 20} | SELDOM
EVERY = {"checkpoint_minutes": 0}
NAMES = ("total", "flow", "sample_entropy", "codebook_entropy", "commitment", "gradient_norm")
MICRO = {"micro_batch": 4}
RUNS = {
    "ddp": MICRO,
    "fsdp": MICRO | {"strategy": "fsdp"},
    "small": {"micro_batch": 2, "images": 40, "recompute_blocks": "true"},
    "small-fsdp": {"micro_batch": 2, "images": 40, "recompute_blocks": "true", "strategy": "fsdp"},
    "together": {"images": BATCH, "entropy_over": "processes", "strategy": "fsdp"},
    "apart": {"images": BATCH},
    "broken": {"images": 4 * BATCH, "cooldown_images": 0, "strategy": "fsdp"},
    "freezing": MICRO | EVERY | {"freeze_encoder_after": 40, "strategy": "fsdp"},
}
"""Settings of the runs that two processes make."""


def settings(name: str, **more: object) -> dict[str, object]:
    return SHORT | RUNS[name] | more


def alone(data: Path, folder: Path, **values: object) -> Path:
    assert main(command(data, folder, **(SHORT | values))) == 0
    return folder


def losses(folder: Path, names: tuple[str, ...] = NAMES) -> np.ndarray:
    return np.array([[line[name] for name in names] for line in log_of(folder).values()])


def tensors(checkpoint: Path) -> dict[str, torch.Tensor]:
    """What a checkpoint holds, read by one process."""
    state = TrainState.start(FlowMo(tiny()), TrainConfig())
    read_checkpoint(checkpoint).restore(state, World())
    return state.tensors()


def assert_same_run(a: Path, b: Path) -> None:
    """To float32 rounding: sums of other orders, at most, and a bit of a code that flips for it."""
    assert losses(a) == pytest.approx(losses(b), rel=1e-3, abs=1e-6)
    ours, theirs = tensors(checkpoints_of(a)[-1]), tensors(checkpoints_of(b)[-1])
    assert set(ours) == set(theirs)
    for name, tensor in ours.items():
        # Adam divides by the root of a gradient's square: where that is all rounding, so is the step (of 1e-3).
        assert (tensor - theirs[name]).abs().mean() < 1e-5 * (1 + theirs[name].abs().mean()), name


@pytest.fixture(scope="module")
def two(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the runs of two processes; also one that stopped after its first step."""
    folder = tmp_path_factory.mktemp("two")
    commands = [command(data, folder / name, **settings(name)) for name in RUNS if name != "broken"]
    commands.append(command(data, folder / "begun", "--time-limit", "0s", **settings("fsdp")))
    commands.append(command(_one_broken(folder), folder / "broken", "--validation", str(PHOTO), **settings("broken")))
    finish(start_several(commands, *TWO), timeout=400)
    return folder


@pytest.fixture(scope="module")
def one(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One process that takes each batch in two micro-batches."""
    return alone(data, tmp_path_factory.mktemp("one") / "run", **MICRO)


def test_ddp_is_one_process_with_accumulation(two: Path, one: Path) -> None:
    assert len(losses(one)) == 8
    assert_same_run(two / "ddp", one)
    parts = [path.stat().st_size for path in sorted(checkpoints_of(two / "ddp")[-1].glob("*.distcp"))]
    assert len(parts) == 2  # each process writes half of what both have
    assert max(parts) < 0.6 * sum(parts)


def test_fsdp_is_one_process_with_accumulation(two: Path, one: Path) -> None:
    """Two files a checkpoint, one a process, that one process reads."""
    assert len(list(checkpoints_of(two / "fsdp")[-1].glob("*.distcp"))) == 2
    assert_same_run(two / "fsdp", one)
    assert [line["images"] for line in lines_of(two / "fsdp") if "psnr" in line] == [48, 64]
    for name in ("fsdp", "ddp"):  # each process validated on its share
        for ours, theirs in zip(lines_of(two / name), lines_of(one), strict=False):
            assert [ours[n] for n in ours if n.startswith("psnr")] == pytest.approx(
                [theirs[n] for n in theirs if n.startswith("psnr")], rel=1e-3
            )
    assert (two / "fsdp" / "raw_before_cooldown.safetensors").is_file()


def test_accumulation_within_processes_and_recomputed_blocks(data: Path, two: Path, one: Path, tmp_path: Path) -> None:
    """Micro-batches of 2 on two processes are micro-batches of 2 on one; blocks recomputed or not."""
    small = alone(data, tmp_path / "small", micro_batch=2, images=40)
    assert_same_run(two / "small", small)
    assert_same_run(two / "small-fsdp", small)
    assert losses(small)[0, 3] < losses(one)[0, 3]  # a codebook entropy is of one micro-batch (A7)


def test_entropy_over_processes_is_that_of_the_batch(data: Path, two: Path, tmp_path: Path) -> None:
    """With the code distribution averaged over two processes, they take the step of one with the whole batch, but for
    the noise, which is drawn by micro-batch: compared on the terms that no noise enters."""
    batch = alone(data, tmp_path / "batch", images=BATCH)
    names = ("sample_entropy", "codebook_entropy", "commitment", "bit_entropy")
    whole, together, apart = (losses(folder, names)[0] for folder in (batch, two / "together", two / "apart"))
    assert together == pytest.approx(whole, rel=1e-5)
    assert apart[1] < whole[1] - 1e-3  # fewer samples, less entropy


def test_a_checkpoint_goes_on_with_another_number_of_processes(data: Path, two: Path, one: Path) -> None:
    """Two processes begin with shards, one goes on, two end with whole models; the losses are those of one."""
    folder = two / "begun"
    assert len(log_of(folder)) == 1
    assert main(command(data, folder, "--time-limit", "0s", **settings("ddp"))) == 0
    assert len(log_of(folder)) == 2
    finish(start(command(data, folder, **settings("ddp")), *TWO))
    assert_same_run(folder, one)


def test_an_encoder_freezes_and_the_optimizer_is_built_anew(data: Path, two: Path, tmp_path: Path) -> None:
    """A14, sharded and alone: from then on the encoder stays bit for bit, and the decoder's moments begin again."""
    freezing = alone(data, tmp_path / "freezing", **MICRO, **EVERY, freeze_encoder_after=40)
    assert losses(two / "freezing") == pytest.approx(losses(freezing), rel=1e-3, abs=1e-6)
    for folder in (freezing, two / "freezing"):
        at, after = (read_checkpoint(checkpoints_of(folder)[k - 1]) for k in (5, 7))
        a = TrainState.start(FlowMo(tiny()), TrainConfig())
        at.restore(a, World())
        model = FlowMo(tiny())
        model.encoder.requires_grad_(False)
        b = TrainState.start(model, TrainConfig())
        after.restore(b, World())
        before = dict(a.model.named_parameters())
        for name, parameter in model.named_parameters():
            assert torch.equal(parameter, before[name]) == name.startswith("encoder"), name
        assert {float(entry["step"]) for entry in a.optimizer.state.values()} == {5.0}
        assert {float(entry["step"]) for entry in b.optimizer.state.values()} == {2.0}


def test_a_rank_that_dies_comes_back(data: Path, one: Path, tmp_path: Path) -> None:
    """torchrun starts the processes again, and they go on from the newest checkpoint."""
    arguments = command(data, tmp_path / "run", **(SHORT | MICRO | EVERY))
    process = start(arguments, *TWO, "--max-restarts", "2")
    wait_for_step(process, tmp_path / "run", 3)
    victim = _processes_of(tmp_path / "run")[-1]
    os.kill(victim, signal.SIGKILL)
    output = finish(process)
    assert "resuming at" in output
    assert_same_run(tmp_path / "run", one)


def test_sigterm_reaches_all_and_ends_with_a_checkpoint(data: Path, tmp_path: Path) -> None:
    process = start(command(data, tmp_path, **(SHORT | EVERY | {"images": 10**6, "cooldown_images": 0})), *TWO)
    wait_for_step(process, tmp_path, 3)
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=60)
    assert "stopped on request" in output
    newest = read_checkpoint(checkpoints_of(tmp_path)[-1])
    assert newest.about["step"] == max(log_of(tmp_path))


def test_waits_for_the_main_process_outlast_those_of_a_step() -> None:
    output, _ = start_script("patience.py", launcher=TWO).communicate(timeout=240)
    assert {"0 was told", "1 was told", "1 waited no longer"} <= set(output.splitlines()), output


def test_broken_pictures_of_either_process_are_counted(two: Path) -> None:
    """One of eight: whichever process draws it, both count it, once in four epochs, and the log names it."""
    broken = [line for line in lines_of(two / "broken") if "broken" in line]
    assert [(line["images"], line["broken_images"]) for line in broken] == [(BATCH, 1)]
    assert {name for line in broken for name in line["broken"]} == {"3.jpg"}
    with BatchLoader(open_images(two / "pictures"), BATCH // 2, 32, 0, workers=0, rank=1, world=2) as loader:
        second = [name for batch in islice(loader, 4) for name in batch.skipped]
    assert second == ["3.jpg"]  # it was each one's turn


def test_a_batch_that_cannot_be_split(data: Path, tmp_path: Path) -> None:
    process = start(command(data, tmp_path, **(SHORT | {"batch_size": 9})), *TWO)
    output, _ = process.communicate(timeout=60)
    assert process.returncode
    assert "batch_size 9 cannot be split over 2 processes" in output


def _one_broken(folder: Path) -> Path:
    """The sample pictures, the fourth cut off."""
    (folder / "pictures").mkdir()
    for k, path in enumerate(samples.paths()):
        (folder / "pictures" / f"{k}.jpg").write_bytes(path.read_bytes()[: 2000 if k == 3 else None])
    return folder / "pictures"


def _processes_of(folder: Path) -> list[int]:
    """The two processes that train into this folder."""
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        if len(found := warm_python.started_with(str(folder))) == 2:
            return found
        time.sleep(0.1)
    raise AssertionError("torchrun has not two processes")
