"""``flowmo tokenize DATA --out tokens.npy``, and a GPT of another library that learns from it."""

from __future__ import annotations

import json
import runpy
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from command_support import Command
from PIL import Image

import flowmo as package
import warm_python
from flowmo import samples
from flowmo.codec import Shard, read_shard, write_array
from flowmo.files import replacing
from flowmo.quantize.tokens import Tokens

EXAMPLE = Path(__file__).parents[2] / "examples" / "train_gpt.py"


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Two classes of pictures, and a file that is none."""
    for i, path in enumerate(samples.paths()):
        target = tmp_path / "data" / ("animals" if i % 2 else "things") / f"{path.stem}.png"
        target.parent.mkdir(parents=True, exist_ok=True)
        Image.open(path).resize((48, 40)).save(target)
    (tmp_path / "data" / "animals" / "bad.png").write_bytes(b"no picture")
    return tmp_path / "data"


def test_an_array_of_tokens(flowmo: Command, pictures: Path) -> None:
    result = flowmo("tokenize", pictures, "--labels", "--out", "made/tokens.npy")
    assert result.code == 1, result.err  # one picture is bad
    assert sorted(p.name for p in Path("made").iterdir()) == ["tokens.json", "tokens.labels.npy", "tokens.npy"]
    tokens = np.load("made/tokens.npy", mmap_mode="r")
    facts = json.loads(Path("made/tokens.json").read_text())
    labels = np.load("made/tokens.labels.npy")
    flowmo("tokenize", pictures, "--labels", "--out", "made/same.shard")
    shard = read_shard("made/same.shard")
    assert tokens.dtype == np.uint16
    assert np.array_equal(tokens, shard.tokens.indices.flatten(1).numpy())
    assert np.array_equal(labels, shard.labels.numpy())
    assert facts["names"] == shard.names
    assert facts["classes"] == ["animals", "things"]
    assert (facts["fingerprint"], facts["vocabulary"], facts["length"]) == (f"{shard.fingerprint:08x}", 512, 32)
    rows = tokens.reshape(len(tokens), facts["num_tokens"], facts["groups_per_token"])
    kind = facts["bits_per_group"], tuple(facts["image_size"]), facts["bit_order"]
    assert package.Tokens.from_numpy(rows, *kind) == shard.tokens


def test_single_bits_become_integers_that_a_sequence_model_can_take(flowmo: Command, pictures: Path) -> None:
    """The packaged model's tokens are of bits in order of their weight: the first integer has the first of them."""
    more = ("--labels", "--size", 64, "--bits-per-token", 18)
    assert flowmo("tokenize", pictures, *more, "--out", "tokens.npy", model=False).code == 1  # one picture is bad
    assert flowmo("tokenize", pictures, *more, "--out", "same.shard", model=False).code == 1
    rows, facts = np.load("tokens.npy"), json.loads(Path("tokens.json").read_text())
    bits = read_shard("same.shard").tokens
    assert rows.shape == (8, 32)
    assert rows.dtype == np.uint16
    assert (facts["vocabulary"], facts["bits_per_group"], facts["bit_order"]) == (512, 9, "consecutive")
    assert np.array_equal(rows[:, 0], (bits.indices[:, 0, :9] * 2 ** torch.arange(9)).sum(1))
    rows = rows.reshape(len(rows), facts["num_tokens"], facts["groups_per_token"])
    kind = facts["bits_per_group"], tuple(facts["image_size"]), facts["bit_order"]
    assert package.Tokens.from_numpy(rows, *kind) == bits


def test_nothing_is_overwritten_unasked(flowmo: Command, pictures: Path) -> None:
    Path("tokens.json").write_text("mine")
    result = flowmo("tokenize", pictures, "--out", "tokens.npy")
    assert result.code == 2
    assert "tokens.json" in result.err
    assert not Path("tokens.npy").exists()
    result = flowmo("tokenize", pictures, "--out", "tokens.npy", "--force", "--json")
    assert result.json["images"] == 8
    assert json.loads(Path("tokens.json").read_text())["labels"] is None
    assert not Path("tokens.labels.npy").exists()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_a_full_disk_is_said_with_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "x.npy"

    def save() -> None:
        with replacing(target), open("/dev/full", "wb") as file:
            np.save(file, np.zeros(10**6))  # NumPy names neither the file nor the reason

    with pytest.raises(OSError, match="No space left on device") as raised:
        save()
    assert raised.value.filename == str(target)

    def full(path: Path, *_: Any) -> Any:
        return open("/dev/full", "wb")

    monkeypatch.setattr(Path, "open", full)
    tokens = Tokens(torch.zeros(9000, 4, 2, dtype=torch.int64), 9, (32, 32))
    with pytest.raises(OSError, match="No space left on device") as raised:
        write_array(target, Shard(tokens, ["x"] * 9000, None, 1, "crop", None))
    assert raised.value.filename == str(target)


def test_a_gpt_learns_these_tokens_and_samples(flowmo: Command, pictures: Path) -> None:
    pytest.importorskip("transformers", reason="needs transformers: pip install 'flowmo[examples]'")
    weights = Path("model.safetensors")
    package.weights.save_model(package.FlowMo(package.presets.tiny()), weights, torch.float32)
    assert flowmo("tokenize", pictures, "--labels", "--model", weights, "--out", "tokens.npy", model=False).code == 1
    settings = ["--steps", "60", "--batch-size", "4", "--width", "64", "--depth", "2", "--samples", "3", "--label", "1"]
    command = [warm_python.python(), EXAMPLE, "tokens.npy", "--model", weights, *settings, "--out", "drawn.png"]
    result = subprocess.run(command, capture_output=True, text=True, timeout=300, env=warm_python.environment())
    assert result.returncode == 0, result.stderr
    assert "loss_type" not in result.stderr  # a warning that would puzzle
    losses = [float(line.split()[2]) for line in result.stdout.splitlines() if line.startswith("step")]
    assert losses[0] > 6 > losses[-1]  # ln 512 is 6.24; eight images are soon known by heart
    assert Image.open("drawn.png").size == (96, 32)


def test_what_the_gpt_is_held_to_is_of_all_classes() -> None:
    pytest.importorskip("transformers", reason="needs transformers: pip install 'flowmo[examples]'")
    mixed = runpy.run_path(str(EXAMPLE))["mixed"]
    labels = np.repeat(np.arange(3), 100)  # as class folders give them
    assert sorted(mixed(labels)) == list(range(300))
    assert set(labels[mixed(labels)[-15:]]) == {0, 1, 2}
    given = np.tile(np.arange(3), 100)
    assert mixed(given).tolist() == list(range(300))
