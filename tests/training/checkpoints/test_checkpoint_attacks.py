"""Checkpoints as an attacker would make them, checksums right, and manifests with one flipped bit."""

from __future__ import annotations

import hashlib
import io
import json
import os
import pathlib
import pickle
import random
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from run_support import command
from torch.distributed.checkpoint.metadata import BytesStorageMetadata, MetadataIndex

from flowmo.cli.main import main
from flowmo.errors import TrainingError
from flowmo.presets import tiny
from flowmo.tokenizer import FlowMo
from flowmo.training import TrainConfig, TrainState, World, read_newest, save_checkpoint
from flowmo.training.checkpoints.checkpoint import CHECKSUM, Checkpoint, _checksum, read_about, read_checkpoint
from flowmo.training.checkpoints.stored_tensors import read_table
from flowmo.training.start import raw_model

HERE = World()


@pytest.fixture
def state() -> TrainState:
    return TrainState.start(FlowMo(tiny()), TrainConfig())


def save(folder: Path, state: TrainState, images: int) -> Path:
    state.images_seen = images
    folder.mkdir(exist_ok=True)
    about = {"model_config": json.loads(json.dumps(_plain(state))), "encoder_frozen": False}
    return save_checkpoint(folder, state, TrainConfig(), HERE, about)


def _plain(state: TrainState) -> dict[str, Any]:
    from flowmo.config import to_dict

    return to_dict(state.model.config)  # type: ignore[arg-type]


class Malicious:
    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.folder),)


def signed(path: Path, change: Callable[[dict[str, Any]], None] = lambda about: None) -> None:
    """The manifest of a checkpoint changed, and every checksum made right again."""
    about = json.loads((path / "checkpoint.json").read_text())
    del about[CHECKSUM]
    for name in about["files"]:
        about["files"][name] = hashlib.sha256((path / name).read_bytes()).hexdigest()
    change(about)
    (path / "checkpoint.json").write_text(json.dumps(about | {CHECKSUM: _checksum(about)}))


class Elsewhere:
    """Is pickled as a path of another system is there."""

    def __init__(self, kind: str) -> None:
        self.kind = kind

    def __reduce__(self) -> tuple[Any, ...]:
        return getattr(pathlib, self.kind), ("C:\\", "run")


@pytest.mark.parametrize("kind", ["WindowsPath", "PosixPath"])
def test_a_checkpoint_of_another_system_is_read(kind: str, state: TrainState, tmp_path: Path) -> None:
    """The table names the folder by a path of the system that wrote it, which cannot be made on the other."""
    path = save(tmp_path / "run", state, 8)
    metadata = pickle.loads((path / ".metadata").read_bytes())
    metadata.storage_meta.checkpoint_id = Elsewhere(kind)
    (path / ".metadata").write_bytes(pickle.dumps(metadata))
    signed(path)
    metadata = read_table(path, read_about(path)["files"])
    assert type(metadata.storage_meta.checkpoint_id) is getattr(pathlib, f"Pure{kind}")
    read_checkpoint(path, HERE, TrainConfig)


def poison(path: Path, proof: Path, every: bool) -> None:
    """Entries of the table of contents become pickles that make the folder ``proof``: one, or every one."""
    metadata = pickle.loads((path / ".metadata").read_bytes())
    content = io.BytesIO()
    torch.save(Malicious(proof), content)
    data = path / "__0_0.distcp"
    offset = data.stat().st_size
    data.write_bytes(data.read_bytes() + content.getvalue())
    names = sorted(metadata.state_dict_metadata)
    for name in names if every else names[:1]:
        metadata.state_dict_metadata[name] = BytesStorageMetadata()
        places = [index for index in metadata.storage_data if index.fqn == name]
        kind = type(metadata.storage_data[places[0]])
        for index in places:
            del metadata.storage_data[index]
        metadata.storage_data[MetadataIndex(name)] = kind("__0_0.distcp", offset, len(content.getvalue()))
    (path / ".metadata").write_bytes(pickle.dumps(metadata))
    signed(path)


@pytest.mark.parametrize("every", [False, True])
def test_entries_that_are_no_tensors_are_never_loaded(tmp_path: Path, state: TrainState, every: bool) -> None:
    run = tmp_path / "run"
    found = read_checkpoint(save(run, state, 8))
    poison(found.path, tmp_path / "executed", every)
    with pytest.raises(TrainingError):
        read_checkpoint(found.path)
    for moments in (True, False):  # resuming, and the raw weights of --init
        with pytest.raises(TrainingError, match="does not fit"):
            Checkpoint(found.path, read_about(found.path)).restore(state, HERE, moments)
    with pytest.raises(TrainingError):
        raw_model(run)
    assert not (tmp_path / "executed").exists()


def test_a_tensor_whose_bytes_are_a_pickle_of_something_else(tmp_path: Path, state: TrainState) -> None:
    path = save(tmp_path, state, 8)
    metadata = pickle.loads((path / ".metadata").read_bytes())
    content = io.BytesIO()
    torch.save(Malicious(tmp_path / "executed"), content)
    data = path / "__0_0.distcp"
    offset = data.stat().st_size
    data.write_bytes(data.read_bytes() + content.getvalue())
    for place in metadata.storage_data.values():
        object.__setattr__(place, "offset", offset)
        object.__setattr__(place, "length", len(content.getvalue()))
    (path / ".metadata").write_bytes(pickle.dumps(metadata))
    signed(path)
    with pytest.raises(TrainingError, match="holds more than tensors") as refused:
        read_checkpoint(path).restore(state, HERE)
    assert "weights_only" not in str(refused.value)
    assert not (tmp_path / "executed").exists()


def test_a_tensor_that_unpacks_to_gigabytes(tmp_path: Path, state: TrainState) -> None:
    path = save(tmp_path, state, 8)
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a/data.pkl", b"(" * 2**26)
    metadata = pickle.loads((path / ".metadata").read_bytes())
    for place in metadata.storage_data.values():
        object.__setattr__(place, "offset", 0)
        object.__setattr__(place, "length", len(content.getvalue()))
    (path / "__0_0.distcp").write_bytes(content.getvalue())
    (path / ".metadata").write_bytes(pickle.dumps(metadata))
    signed(path)
    with pytest.raises(TrainingError, match="compressed"):
        read_checkpoint(path).restore(state, HERE)


@pytest.mark.parametrize("name", ["../outside", "/etc/hostname", "sub/__0_0.distcp", "other", ""])
def test_only_plain_names_of_its_own_files_are_read(tmp_path: Path, state: TrainState, name: str) -> None:
    path = save(tmp_path, state, 8)
    signed(path, lambda about: about["files"].update({name: "0" * 64}))
    with pytest.raises(TrainingError, match="damaged"):
        read_checkpoint(path)


def test_a_table_of_contents_that_points_elsewhere(tmp_path: Path, state: TrainState) -> None:
    path = save(tmp_path, state, 8)
    (tmp_path / "__0_0.distcp").write_bytes((path / "__0_0.distcp").read_bytes())
    metadata = pickle.loads((path / ".metadata").read_bytes())
    for place in metadata.storage_data.values():
        object.__setattr__(place, "relative_path", "../__0_0.distcp")
    (path / ".metadata").write_bytes(pickle.dumps(metadata))
    signed(path)
    with pytest.raises(TrainingError, match="does not list"):
        read_checkpoint(path)


def test_a_table_of_contents_of_ten_million_marks(tmp_path: Path, state: TrainState) -> None:
    path = save(tmp_path / "run", state, 8)
    (path / ".metadata").write_bytes(b"(" * 10**7)
    signed(path)
    began = time.monotonic()
    with pytest.raises(TrainingError, match="nested too deeply"):
        read_checkpoint(path)
    assert time.monotonic() - began < 5  # before: more than a minute on a busy machine


def test_a_table_of_contents_that_repeats_its_pieces(tmp_path: Path, state: TrainState) -> None:
    path = save(tmp_path / "run", state, 8)
    metadata = pickle.loads((path / ".metadata").read_bytes())
    for entry in metadata.state_dict_metadata.values():
        entry.chunks.extend(entry.chunks * 1000)  # two bytes each, and each would be read
    (path / ".metadata").write_bytes(pickle.dumps(metadata))
    signed(path)
    with pytest.raises(TrainingError, match="more pieces than it stores"):
        read_checkpoint(path)


def test_a_pipe_among_its_files_does_not_hang(tmp_path: Path, state: TrainState) -> None:
    path = save(tmp_path, state, 8)
    (path / "meter.safetensors").unlink()
    os.mkfifo(path / "meter.safetensors")
    with pytest.raises(TrainingError, match="damaged"):
        read_checkpoint(path)


@pytest.mark.parametrize("pickled", [b"(" * 10**6, b"]" * 10**6, b"]r\xff\xff\xff\x7f.", b"", b"\x80\x05]."])
def test_a_table_of_contents_of_nonsense(tmp_path: Path, state: TrainState, pickled: bytes) -> None:
    path = save(tmp_path, state, 8)
    (path / ".metadata").write_bytes(pickled)
    signed(path)
    with pytest.raises(TrainingError, match="damaged"):
        read_checkpoint(path)


@pytest.mark.parametrize(
    "change",
    [
        {"images_seen": 10**18},
        {"images_seen": 16},
        {"images_seen": -8},
        {"images_seen": True},
        {"images_seen": "8"},
        {"step": 1.5},
        {"skipped": None},
        {"train_config": []},
        {"train_config": {"batch_size": "many"}},
        {"model_config": 3},
        {"model_config": {"encoder": {}}},
        {"encoder_frozen": "yes"},
        {"files": {}},
        {"files": {".metadata": 3}},
    ],
)
def test_a_manifest_out_of_range_falls_back_to_the_checkpoint_before(
    tmp_path: Path, state: TrainState, change: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    save(tmp_path, state, 4)
    signed(save(tmp_path, state, 8), lambda about: about.update(change))
    found = read_newest(tmp_path)
    assert found is not None
    assert found.about["images_seen"] == 4
    assert "passed over" in capsys.readouterr().err


def test_any_flipped_bit_of_the_manifest_falls_back(tmp_path: Path, state: TrainState) -> None:
    """Every bit of its first 300 bytes, where the counters are, and 300 more anywhere."""
    save(tmp_path, state, 4)
    file = save(tmp_path, state, 8) / "checkpoint.json"
    content = file.read_bytes()
    rng = random.Random(0)
    places = [*range(300), *(rng.randrange(len(content)) for _ in range(300))]
    for place in places:
        damaged = bytearray(content)
        damaged[place] ^= 1 << rng.randrange(8)
        file.write_bytes(damaged)
        try:
            about = read_about(file.parent)
        except TrainingError:
            continue
        file.write_bytes(content)  # a space between two values, which says the same
        assert about == read_about(file.parent)


def test_the_command_goes_on_from_the_checkpoint_before(
    data: Path, three_steps: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import shutil

    shutil.copytree(three_steps, tmp_path / "run")
    newest = sorted((tmp_path / "run").glob("checkpoint-*"))
    text = (newest[-1] / "checkpoint.json").read_text()
    (newest[-1] / "checkpoint.json").write_text(text.replace('"step"', '"stop"'))
    assert main(command(data, tmp_path / "run", images=24, cooldown_images=0, workers=0)) == 0
    said = capsys.readouterr()
    assert "passed over" in said.err
    assert f"resuming at {int(newest[-2].name[-10:]):,} images" in said.out


def test_checkpoints_of_the_first_release_are_read(tmp_path: Path, state: TrainState) -> None:
    """Their manifest has no checksum of its own; one that claims to be such and has one is refused."""
    path = save(tmp_path, state, 8)
    about = json.loads((path / "checkpoint.json").read_text()) | {"format": "flowmo-checkpoint-2"}
    (path / "checkpoint.json").write_text(json.dumps(about))
    with pytest.raises(TrainingError, match="not as it was written"):
        read_about(path)
    del about[CHECKSUM]
    (path / "checkpoint.json").write_text(json.dumps(about))
    assert read_checkpoint(path).about["images_seen"] == 8
