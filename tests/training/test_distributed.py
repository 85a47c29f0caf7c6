"""Two real processes under torchrun against one: the same losses, the same weights, checkpoints that either reads."""

from __future__ import annotations

import os
import re
import signal
import time
from pathlib import Path

import pytest
import torch
from run_support import BATCH, checkpoints_of, command, finish, lines_of, log_of, start, wait_for_step

from flowmo.cli.main import main
from flowmo.presets import tiny
from flowmo.tokenizer import FlowMo
from flowmo.training import TrainConfig, TrainState, World
from flowmo.training.checkpoint import read_checkpoint

TWO = ("--standalone", "--nproc-per-node", "2")
SHORT = {"images": 80, "cooldown_images": 16, "precision": "fp32", "gradient_clip": 1.0, "check_images": 48}


def run(data: Path, folder: Path, processes: int, *more: str, **settings: object) -> Path:
    arguments = command(data, folder, *more, **(SHORT | settings))
    if processes == 1:
        assert main(arguments) == 0
    else:
        finish(start(arguments, *TWO))
    return folder


def losses(folder: Path) -> list[tuple[float, ...]]:
    names = ("total", "flow", "sample_entropy", "codebook_entropy", "commitment", "gradient_norm", "bit_entropy")
    return [tuple(line[name] for name in names) for line in log_of(folder).values()]


def tensors(checkpoint: Path) -> dict[str, torch.Tensor]:
    """What a checkpoint holds, read by one process."""
    state = TrainState.start(FlowMo(tiny()), TrainConfig())
    read_checkpoint(checkpoint).restore(state, World())
    return state.tensors()


def assert_same_run(a: Path, b: Path) -> None:
    """To float32 rounding: sums of other orders, at most."""
    assert losses(a) == pytest.approx(losses(b), rel=2e-4, abs=1e-6)
    ours, theirs = tensors(checkpoints_of(a)[-1]), tensors(checkpoints_of(b)[-1])
    assert set(ours) == set(theirs)
    for name, tensor in ours.items():
        # Adam divides by the root of a gradient's square: where that is all rounding, so is the step (of 1e-3).
        assert (tensor - theirs[name]).abs().mean() < 1e-5 * (1 + theirs[name].abs().mean()), name


@pytest.fixture(scope="module")
def alone(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One process that takes each batch in two micro-batches."""
    return run(data, tmp_path_factory.mktemp("alone") / "run", 1, micro_batch=4)


@pytest.fixture(scope="module")
def fsdp(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run(data, tmp_path_factory.mktemp("fsdp") / "run", 2, micro_batch=4, strategy="fsdp")


def test_ddp_is_one_process_with_accumulation(data: Path, alone: Path, tmp_path: Path) -> None:
    ddp = run(data, tmp_path / "ddp", 2, micro_batch=4)
    assert len(log_of(ddp)) == 10
    assert_same_run(ddp, alone)


def test_fsdp_is_one_process_with_accumulation(alone: Path, fsdp: Path) -> None:
    """Two files a checkpoint, one a process, that one process reads."""
    assert len(list(checkpoints_of(fsdp)[-1].glob("*.distcp"))) == 2
    assert_same_run(fsdp, alone)
    assert [line["images"] for line in lines_of(fsdp) if "psnr" in line] == [48, 80]
    assert (fsdp / "raw_before_cooldown.safetensors").is_file()


@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
def test_accumulation_within_processes_and_recomputed_blocks(
    strategy: str, data: Path, alone: Path, tmp_path: Path
) -> None:
    """Micro-batches of 2 on two processes are micro-batches of 2 on one; blocks recomputed or not."""
    one = run(data, tmp_path / "one", 1, micro_batch=2, images=40)
    two = run(data, tmp_path / "two", 2, micro_batch=2, images=40, strategy=strategy, recompute_blocks="true")
    assert_same_run(two, one)
    assert losses(one) != pytest.approx(losses(alone)[:5], rel=1e-3)  # a codebook entropy is of one micro-batch (A7)


def test_entropy_over_processes_is_that_of_the_batch(data: Path, tmp_path: Path) -> None:
    """With the code distribution averaged over two processes, they take the step of one with the whole batch, but for
    the noise, which is drawn by micro-batch: compared on the terms that no noise enters."""
    one = run(data, tmp_path / "one", 1, images=BATCH)
    two = run(data, tmp_path / "two", 2, images=BATCH, entropy_over="processes", strategy="fsdp")
    apart = run(data, tmp_path / "apart", 2, images=BATCH)
    names = ("sample_entropy", "codebook_entropy", "commitment", "bit_entropy")
    first = [[log_of(folder)[1][name] for name in names] for folder in (one, two, apart)]
    assert first[1] == pytest.approx(first[0], rel=1e-5)
    assert first[2][1] < first[0][1] - 1e-3  # fewer samples, less entropy


@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
def test_a_checkpoint_goes_on_with_another_number_of_processes(
    strategy: str, data: Path, alone: Path, tmp_path: Path
) -> None:
    """Two processes begin, one goes on, two end; the losses are those of one."""
    folder = tmp_path / "run"
    settings = {"micro_batch": 4, "strategy": strategy, "cooldown_images": 16}
    for processes, limit in ((2, "0s"), (1, "0s"), (2, None)):
        run(data, folder, processes, *(["--time-limit", limit] if limit else []), **settings)
    assert_same_run(folder, alone)


def test_an_encoder_freezes_and_the_optimizer_is_built_anew(data: Path, tmp_path: Path) -> None:
    """A14, sharded and alone: from then on the encoder stays bit for bit, and the decoder's moments begin again."""
    settings = {"micro_batch": 4, "freeze_encoder_after": 40, "keep": 20}
    one, two = (
        run(data, tmp_path / f"{n}", n, **settings, strategy=strategy) for n, strategy in ((1, "ddp"), (2, "fsdp"))
    )
    assert losses(two) == pytest.approx(losses(one), rel=2e-4, abs=1e-6)
    for folder in (one, two):
        at, after = (read_checkpoint(checkpoints_of(folder)[k - 1]) for k in (5, 7))
        a, b = TrainState.start(FlowMo(tiny()), TrainConfig()), TrainState.start(FlowMo(tiny()), TrainConfig())
        at.restore(a, World())
        b.model.encoder.requires_grad_(False)
        b = TrainState.start(b.model, TrainConfig())
        after.restore(b, World())
        for name, parameter in b.model.named_parameters():
            same = torch.equal(parameter, dict(a.model.named_parameters())[name])
            assert same == name.startswith("encoder"), name
        assert {float(entry["step"]) for entry in a.optimizer.state.values()} == {5.0}
        assert {float(entry["step"]) for entry in b.optimizer.state.values()} == {2.0}


def test_a_rank_that_dies_comes_back(data: Path, alone: Path, tmp_path: Path) -> None:
    """torchrun starts the processes again, and they go on from the newest checkpoint."""
    arguments = command(data, tmp_path / "run", **(SHORT | {"micro_batch": 4, "images": 80}))
    process = start(arguments, *TWO, "--max-restarts", "2")
    wait_for_step(process, tmp_path / "run", 3)
    victim = _children(process.pid)[-1]
    os.kill(victim, signal.SIGKILL)
    output = finish(process)
    assert "resuming at" in output
    assert_same_run(tmp_path / "run", alone)


def test_sigterm_reaches_all_and_ends_with_a_checkpoint(data: Path, tmp_path: Path) -> None:
    process = start(command(data, tmp_path, **(SHORT | {"images": 10**6, "cooldown_images": 0})), *TWO)
    wait_for_step(process, tmp_path, 3)
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=60)
    assert "stopped on request" in output
    newest = read_checkpoint(checkpoints_of(tmp_path)[-1])
    assert newest.about["step"] == max(log_of(tmp_path))


def test_a_batch_that_cannot_be_split(data: Path, tmp_path: Path) -> None:
    process = start(command(data, tmp_path, **(SHORT | {"batch_size": 9})), *TWO)
    output, _ = process.communicate(timeout=60)
    assert process.returncode
    assert "batch_size 9 cannot be split over 2 processes" in output


def _children(pid: int) -> list[int]:
    """The training processes below torchrun."""
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        found = []
        for status in Path("/proc").glob("[0-9]*/status"):
            try:
                text = status.read_text()
                line = (status.parent / "cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            parent = re.search(r"^PPid:\s+(\d+)", text, re.MULTILINE)
            if parent and int(parent[1]) == pid and b"train" in line:
                found.append(int(status.parent.name))
        if len(found) == 2:
            return sorted(found)
        time.sleep(0.1)
    raise AssertionError("torchrun has no two children")
