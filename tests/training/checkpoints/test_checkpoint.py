"""Checkpoints that are damaged, foreign, malicious, half-written, or that find the disk full."""

from __future__ import annotations

import os
import pickle
import resource
import shutil
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from run_support import BATCH, checkpoints_of, command, log_of

from flowmo.cli.main import main
from flowmo.config import to_dict
from flowmo.errors import ConfigError, TrainingError
from flowmo.presets import tiny
from flowmo.tokenizer import FlowMo
from flowmo.training import TrainConfig, TrainState, World, read_newest, save_checkpoint
from flowmo.training.checkpoints import checkpoint
from flowmo.training.checkpoints.checkpoint import read_checkpoint, tidy
from flowmo.training.checkpoints.run_folder import run_folder
from flowmo.training.monitoring.logs import read_lines

HERE = World()


@pytest.fixture
def state() -> TrainState:
    return TrainState.start(FlowMo(tiny()), TrainConfig())


def save(folder: Path, state: TrainState, images: int, **settings: object) -> Path:
    state.images_seen = images
    return save_checkpoint(folder, state, TrainConfig(**settings), HERE)  # type: ignore[arg-type]


def test_what_comes_back_is_what_was_saved(tmp_path: Path, state: TrainState) -> None:
    for parameter in state.trained:
        parameter.grad = torch.randn_like(parameter)
    state.optimizer.step()
    state.ema.update(0.5)
    path = save(tmp_path, state, 8)
    other = TrainState.start(FlowMo(tiny()), TrainConfig())
    read_checkpoint(path).restore(other, HERE)
    ours, theirs = state.tensors(), other.tensors()
    assert set(ours) == set(theirs)
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert any(name.endswith("exp_avg_sq") and tensor.any() for name, tensor in theirs.items())


def test_only_the_newest_are_kept(tmp_path: Path, state: TrainState) -> None:
    for images in (8, 16, 24):
        save(tmp_path, state, images, keep=2)
    assert [p.name for p in checkpoints_of(tmp_path)] == ["checkpoint-0000000016", "checkpoint-0000000024"]


@pytest.mark.parametrize("name", ["__0_0.distcp", ".metadata", "meter.safetensors", "checkpoint.json"])
def test_one_flipped_bit_is_noticed_and_the_one_before_taken(
    tmp_path: Path, state: TrainState, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    save(tmp_path, state, 8)
    file = save(tmp_path, state, 16) / name
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 128
    file.write_bytes(content)
    found = read_newest(tmp_path)
    assert found is not None
    assert found.about["images_seen"] == 8
    assert "checkpoint-0000000016 is damaged" in capsys.readouterr().err


def test_a_file_that_is_missing(tmp_path: Path, state: TrainState) -> None:
    path = save(tmp_path, state, 8)
    (path / "__0_0.distcp").unlink()
    with pytest.raises(TrainingError, match="is damaged"):
        read_checkpoint(path)


def test_only_damaged_checkpoints_are_an_error_not_a_new_run(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert read_newest(tmp_path) is None
    for k in (8, 16):
        (tmp_path / f"checkpoint-{k:010d}").mkdir()
    assert main(command(data, tmp_path)) == 2
    error = capsys.readouterr().err
    assert "no checkpoint in" in error
    assert "0000000008 is damaged" in error


def test_a_checkpoint_of_another_version_is_not_called_damaged(
    tmp_path: Path, state: TrainState, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def of_tomorrow(config: object) -> dict[str, object]:
        return {**to_dict(config), "setting_of_tomorrow": 3}

    monkeypatch.setattr(checkpoint, "to_dict", of_tomorrow)
    save(tmp_path, state, 8)
    with pytest.raises(TrainingError, match="go on with the version that wrote them") as found:
        read_newest(tmp_path)
    said = capsys.readouterr().err
    assert "is whole, but another version of FlowMo wrote it: unknown setting 'setting_of_tomorrow'" in said
    assert "damaged" not in said + str(found.value)


def test_nothing_in_a_checkpoint_is_executed(tmp_path: Path, state: TrainState) -> None:
    """Even where the checksums are right, as an attacker would make them."""
    path = save(tmp_path, state, 8)

    class Malicious:
        def __reduce__(self) -> tuple:  # type: ignore[type-arg]
            return os.mkdir, (str(tmp_path / "executed"),)

    found = read_checkpoint(path)
    (path / ".metadata").write_bytes(pickle.dumps(Malicious()))
    with pytest.raises(TrainingError, match=r"asks for posix\.mkdir"):
        found.restore(state, HERE)
    assert not (tmp_path / "executed").exists()


def test_what_a_kill_left_behind_is_removed(tmp_path: Path, state: TrainState) -> None:
    save(tmp_path, state, 8)
    shutil.copytree(tmp_path / "checkpoint-0000000008", tmp_path / ".checkpoint-0000000016.part")
    assert len(checkpoints_of(tmp_path)) == 1
    tidy(tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["checkpoint-0000000008"]


def test_the_same_moment_again_replaces_a_damaged_one(tmp_path: Path, state: TrainState) -> None:
    (tmp_path / "checkpoint-0000000008").mkdir()
    (tmp_path / "checkpoint-0000000008" / "junk").touch()
    save(tmp_path, state, 8)
    found = read_newest(tmp_path)
    assert found is not None
    assert sorted(p.name for p in found.path.iterdir())[-1] == "meter.safetensors"


@contextmanager
def full_after(size: int) -> Iterator[None]:
    """No file may grow beyond ``size`` bytes: what a write gets on a full disk, as an error."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)


def test_a_full_disk_is_an_error_and_the_old_checkpoint_intact(tmp_path: Path, state: TrainState) -> None:
    save(tmp_path, state, 8)
    with full_after(200_000), pytest.raises(TrainingError, match="earlier ones are intact"):
        save(tmp_path, state, 16, keep=1)
    assert [p.name for p in tmp_path.iterdir()] == ["checkpoint-0000000008"]
    assert read_newest(tmp_path) is not None


def test_weights_that_are_no_numbers_are_not_saved(tmp_path: Path, state: TrainState) -> None:
    save(tmp_path, state, 8)
    with torch.no_grad():
        state.trained[3].view(-1)[0] = torch.nan
    with pytest.raises(TrainingError, match="a weight is no longer finite"):
        save(tmp_path, state, 16)
    assert len(checkpoints_of(tmp_path)) == 1


def test_a_checkpoint_of_another_model_does_not_fit(tmp_path: Path, state: TrainState) -> None:
    path = save(tmp_path, state, 8)
    from dataclasses import replace

    wider = replace(tiny(), encoder=replace(tiny().encoder, width=128))
    with pytest.raises(TrainingError, match="does not fit"):
        read_checkpoint(path).restore(TrainState.start(FlowMo(wider), TrainConfig()), HERE)


def test_a_second_run_in_the_same_folder_is_refused(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from flowmo.files import only_one

    with only_one(tmp_path / ".lock") as alone:
        assert alone
        assert main(command(data, tmp_path)) == 2
    assert "another process trains in" in capsys.readouterr().err
    assert not checkpoints_of(tmp_path)


def test_a_cool_down_from_any_checkpoint(data: Path, three_steps: Path, tmp_path: Path) -> None:
    """Of another run, into a folder of its own; the same command again finishes the same cool-down."""
    begin = checkpoints_of(three_steps)[-2]
    more = ["--resume", str(begin), "--cooldown", "40"]
    assert main(command(data, tmp_path, *more, "--time-limit", "0s", cooldown_images=0)) == 0
    assert main(command(data, tmp_path, *more, cooldown_images=0)) == 0
    rates = {line["images"]: line["lr"] for line in log_of(tmp_path).values()}
    start = int(begin.name[-10:])
    assert list(rates) == list(range(start + BATCH, start + 41, BATCH))
    expected = [1e-3 * (40 - BATCH * k) / 40 for k in range(1, 6)]
    assert list(rates.values()) == pytest.approx(expected)


def test_every_file_is_hashed_once_and_each_process_reads_its_share(
    tmp_path: Path, state: TrainState, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When it is written, and when it is read: files are as large as the model."""
    hashed: list[str] = []
    digest = checkpoint._digest
    monkeypatch.setattr(checkpoint, "_digest", lambda path: (hashed.append(path.name), digest(path))[1])
    path = save(tmp_path, state, 8)
    files = sorted(file.name for file in path.iterdir() if file.name != "checkpoint.json")
    assert len(files) > 2
    assert sorted(hashed) == files
    hashed.clear()
    found = read_checkpoint(path)
    assert sorted(hashed) == files

    class Half(World):
        """One of two processes, of which the other finds nothing wrong."""

        def share(self, value: object) -> object:
            return found.about if value is None else value

        def gather(self, value: object) -> list[object]:
            return [value]

    parts = []
    for rank in range(2):
        hashed.clear()
        read_checkpoint(path, Half(rank, 2))
        parts.append(sorted(hashed))
    assert sorted(parts[0] + parts[1]) == files
    assert min(map(len, parts)) >= 1


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="makes named pipes")
@pytest.mark.parametrize("name", ["log.jsonl", "config.json", ".lock", "checkpoint-0000000008/meter.safetensors"])
def test_a_pipe_in_the_folder_of_a_run_is_not_waited_for(tmp_path: Path, name: str) -> None:
    (tmp_path / name).parent.mkdir(exist_ok=True)
    os.mkfifo(tmp_path / name)
    with pytest.raises(TrainingError, match=f"{name}: is a named pipe"), run_folder(tmp_path, World()):
        pass
    if name.endswith(".jsonl"):
        with pytest.raises(ConfigError, match="no plain file"):
            read_lines(tmp_path / name)


def test_a_run_whose_log_was_removed_is_a_run(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(TrainingError, match="no run made"), run_folder(tmp_path, World()):
        pass
    (tmp_path / "checkpoint-0000000008").mkdir()
    with run_folder(tmp_path, World()):
        assert (tmp_path / "log.jsonl").exists()
