"""Checkpoints written in the background: training goes on, a kill in the middle of one loses nothing, each process
writes and hashes its part."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest
import torch
from run_support import SELDOM, checkpoints_of, command, finish, kill, lines_of, log_of, start
from small_run import CONFIG, real_run

from flowmo.errors import TrainingError
from flowmo.presets import tiny
from flowmo.tokenizer import FlowMo
from flowmo.training import TrainConfig, TrainState, World, read_newest
from flowmo.training.checkpoints import saver
from flowmo.training.checkpoints.saver import Saver, shares
from flowmo.weights import load_model


def test_training_goes_on_while_a_checkpoint_is_written(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Writing is held until a later step has moved the weights; what is stored is the state of its own moment."""
    later, states = threading.Event(), []
    run, loader = real_run(data, tmp_path, TrainConfig(**(vars(CONFIG) | {"checkpoint_minutes": 10.0, "keep": 9})))
    write, update = saver.write_checkpoint, type(run).update

    def held(*args: object, **more: object) -> Path:
        assert later.wait(60), "the next step waits for the checkpoint"
        return write(*args, **more)  # type: ignore[arg-type]

    def spied(self: object, batch: object, signals: object) -> object:
        agreed = update(run, batch, signals)  # type: ignore[arg-type]
        if run.state.step == 2:
            states.append({name: tensor.clone() for name, tensor in run.state.tensors().items()})
            run.save()
            assert not checkpoints_of(tmp_path)
        if run.state.step == 4:
            later.set()
        return agreed

    monkeypatch.setattr(saver, "write_checkpoint", held)
    monkeypatch.setattr(type(run), "update", spied)
    assert run.train(loader).finished
    first, last = checkpoints_of(tmp_path)
    assert (first.name[-2:], last.name[-2:]) == ("16", "64")
    state = TrainState.start(FlowMo(tiny()), CONFIG)
    found = read_newest(tmp_path)
    assert found is not None
    type(found)(first, found.about | {"images_seen": 16}).restore(state, World())
    assert all(torch.equal(tensor, states[0][name]) for name, tensor in state.tensors().items())
    lines = [line for line in lines_of(tmp_path) if "checkpoint_seconds" in line]
    assert [line["images"] for line in lines] == [16, 64]
    for line, path in zip(lines, (first, last), strict=True):
        size = sum(file.stat().st_size for file in path.iterdir()) / 2**20
        assert line["checkpoint_mb"] == pytest.approx(size, abs=0.01)
        assert 0 <= line["checkpoint_wait"] <= line["checkpoint_seconds"]


def test_what_could_not_be_written_is_told(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> Path:
        raise TrainingError("no checkpoint could be written: the disk is full")

    monkeypatch.setattr(saver, "write_checkpoint", full)
    run, loader = real_run(data, tmp_path)
    with pytest.raises(TrainingError, match="the disk is full"):
        run.train(loader)


def test_a_finite_state_alone_is_written(tmp_path: Path) -> None:
    state = TrainState.start(FlowMo(tiny()), TrainConfig())
    with torch.no_grad():
        state.trained[0].view(-1)[0] = torch.inf
    with pytest.raises(TrainingError, match="no longer finite"):
        Saver(tmp_path, TrainConfig(), World()).begin(state, {}, {})


def test_killed_in_the_middle_of_writing(data: Path, whole: Path, tmp_path: Path) -> None:
    """A real process gets SIGKILL while a checkpoint lies there half written; the same command makes the same run."""
    process = start(command(data, tmp_path))
    deadline = time.monotonic() + 240
    while time.monotonic() < deadline:
        assert process.poll() is None, process.communicate()[0]
        if len(checkpoints_of(tmp_path)) > 1 and list(tmp_path.glob(".checkpoint-*.part")):
            break
    kill(process)
    assert read_newest(tmp_path) is not None
    assert "resuming at" in finish(start(command(data, tmp_path, **SELDOM)))
    assert log_of(tmp_path) == log_of(whole)
    ours, theirs = load_model(tmp_path / "model.safetensors"), load_model(whole / "model.safetensors")
    assert all(torch.equal(ours.get_parameter(n), p) for n, p in theirs.named_parameters())
    assert not list(tmp_path.glob(".checkpoint*"))


def test_each_process_writes_its_share() -> None:
    sizes = {"a": 100, "b": 60, "c": 50, "d": 10, "e": 0}
    owners = shares(sizes, 2)
    assert owners == {"a": 0, "b": 1, "c": 1, "d": 0, "e": 0} or sorted(set(owners.values())) == [0, 1]
    loads = [sum(sizes[n] for n, rank in owners.items() if rank == r) for r in range(2)]
    assert max(loads) <= 0.6 * sum(loads)
    assert set(shares(sizes, 1).values()) == {0}
