"""A data set becomes one shard: with labels, killed and resumed, by several processes, among broken pictures."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import warm_python
from flowmo.cli.main import main
from flowmo.codec import read_shard
from flowmo.coding.data_set import PART, CodingJob, code_data_set
from flowmo.data import ImageList, open_images, to_tensor
from flowmo.errors import ConfigError
from flowmo.presets import tiny
from flowmo.tokenizer import FlowMo
from flowmo.training import World
from flowmo.weights import load_model, save_model


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory, lively: Callable[[nn.Module], nn.Module]) -> Path:
    torch.manual_seed(1)
    path = tmp_path_factory.mktemp("model") / "small.safetensors"
    save_model(lively(FlowMo(tiny())), path)  # type: ignore[arg-type]
    return path


@pytest.fixture(scope="module")
def many(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A hundred photographs again and again, each time turned otherwise: some more than two parts; with labels."""
    pixels = np.load(data)
    turned = np.concatenate([np.rot90(pixels, k, (1, 2))[:, ::m] for k in range(4) for m in (1, -1)])
    pixels = np.concatenate([turned, turned[:, :, ::-1], 255 - turned])[: 2 * PART + 100]
    path = tmp_path_factory.mktemp("many") / "many.npy"
    np.save(path, np.ascontiguousarray(pixels))
    np.save(path.with_name("many.labels.npy"), np.arange(len(pixels)) % 10)
    return path


def command(many: Path, weights: Path, out: Path) -> list[str]:
    return ["tokenize", str(many), "--out", str(out), "--model", str(weights), "--device", "cpu", "--batch-size", "64"]


@pytest.fixture(scope="module")
def whole(many: Path, weights: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("whole") / "all.shard"
    assert main(command(many, weights, path)) == 0
    return path


def assert_same(a: Path, b: Path) -> None:
    ours, theirs = read_shard(a), read_shard(b)
    assert ours.names == theirs.names
    assert ours.tokens == theirs.tokens
    assert ours.labels is not None
    assert theirs.labels is not None
    assert torch.equal(ours.labels, theirs.labels)


def test_tokens_and_labels_of_all(many: Path, weights: Path, whole: Path) -> None:
    shard = read_shard(whole)
    source = open_images(many)
    assert len(shard.names) == len(source) > 2 * PART
    assert shard.labels is not None
    assert shard.labels.tolist() == [source.label(i) for i in range(len(source))]
    assert not list(whole.parent.glob(".*"))  # nothing is left behind
    model = load_model(weights)
    some = [0, PART - 1, PART, len(source) - 1]
    images = torch.stack([to_tensor(source[i]) for i in some])
    equal = (model.tokenize(images).indices == shard.tokens.indices[some]).float().mean()
    assert equal > 0.99  # batches differ, and with them roundings
    assert shard.fingerprint == model.fingerprint()


def test_mirrored_pictures(many: Path, weights: Path, whole: Path, tmp_path: Path) -> None:
    flipped, twice = tmp_path / "flipped.shard", tmp_path / "twice.shard"
    assert main([*command(many, weights, flipped), "--limit", "70", "--flip"]) == 0
    mirrored = tmp_path / "mirrored.npy"
    np.save(mirrored, np.ascontiguousarray(np.load(many)[:70, :, ::-1]))
    assert main(command(mirrored, weights, twice)) == 0
    ours, plain = read_shard(flipped), read_shard(whole)
    assert ours.tokens == read_shard(twice).tokens
    assert ours.tokens.indices.ne(plain.tokens.indices[:70]).any(-1).any(-1).all()
    assert ours.labels is not None
    assert plain.labels is not None
    assert torch.equal(ours.labels, plain.labels[:70])


def test_killed_it_goes_on_and_ends_the_same(
    many: Path, weights: Path, whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "all.shard"
    words = [warm_python.python(), "-m", "flowmo", *command(many, weights, out)]
    process = subprocess.Popen(words, env=warm_python.environment(), stdout=subprocess.PIPE)
    deadline = time.monotonic() + 120
    while not list(tmp_path.glob(".all.shard.parts/*.shard")):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert not out.exists()
    assert main([*command(many, weights, out), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["images"] == 2 * PART + 100
    assert_same(out, whole)
    assert not list(tmp_path.glob(".*"))


def test_what_is_whole_is_not_coded_again_and_damage_is(many: Path, weights: Path, whole: Path, tmp_path: Path) -> None:
    model, target = load_model(weights), tmp_path / "all.shard"
    source = open_images(many)
    labels = [source.label(i) or 0 for i in range(len(source))]
    job = CodingJob(source, (32, 32), labels=labels, batch_size=64)
    told: list[tuple[int, bool]] = []

    def stop_after_two_parts(count: int, coded: bool) -> None:
        told.append((count, coded))
        if sum(n for n, _ in told) > 2 * PART:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        code_data_set(model, job, target, World(), stop_after_two_parts)
    first = tmp_path / ".all.shard.parts" / "000000.shard"
    content = bytearray(first.read_bytes())
    content[-1] ^= 1
    first.write_bytes(content)
    told.clear()
    coded = code_data_set(model, job, target, World(), lambda count, new: told.append((count, new)))
    assert coded is not None
    assert sum(n for n, new in told if not new) == PART  # the second part alone
    assert sum(n for n, _ in told) == len(source)
    assert_same(target, whole)


def test_parts_of_another_job_are_refused(many: Path, weights: Path, tmp_path: Path) -> None:
    model, target = load_model(weights), tmp_path / "all.shard"
    job = CodingJob(open_images(many, limit=70), (32, 32))

    def stop(count: int, coded: bool) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        code_data_set(model, job, target, World(), stop)
    other = replace(job, fit="pad")
    with pytest.raises(ConfigError, match="parts of a shard from other data or another model"):
        code_data_set(model, other, target, World())
    coded = code_data_set(model, other, target, World(), force=True)
    assert coded is not None
    assert coded.shard is not None
    assert coded.shard.fit == "pad"
    with pytest.raises(ConfigError, match="69 labels for 70 images"):
        replace(job, labels=[0] * 69)


def test_two_processes_write_what_one_writes(many: Path, weights: Path, whole: Path, tmp_path: Path) -> None:
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "flowmo"]
    result = subprocess.run(
        [warm_python.python(), *launcher, *command(many, weights, tmp_path / "all.shard"), "--json"],
        env=warm_python.environment(),
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    shown = json.loads(result.stdout)  # by one of them
    assert shown["images"] == 2 * PART + 100
    assert shown["images_per_s"] > 0
    assert_same(tmp_path / "all.shard", whole)


def test_broken_pictures_are_named_and_left_out(data: Path, weights: Path, tmp_path: Path) -> None:
    paths = [tmp_path / f"{i}.png" for i in range(5)]
    for i, path in enumerate(paths):
        Image.fromarray(np.load(data)[i]).save(path)
    paths[2].write_bytes(b"no picture")
    source = ImageList(paths, [p.name for p in paths], [3, 1, 4, 1, 5])
    job = CodingJob(source, (32, 32), labels=[3, 1, 4, 1, 5], classes=list("abcdef"))
    coded = code_data_set(load_model(weights), job, tmp_path / "s.shard", World())
    assert coded is not None
    assert [name for name, _ in coded.bad] == ["2.png"]
    shard = read_shard(tmp_path / "s.shard")
    assert shard.names == ["0.png", "1.png", "3.png", "4.png"]
    assert shard.labels is not None
    assert shard.labels.tolist() == [3, 1, 1, 5]
    assert shard.classes == list("abcdef")
