"""Shards as training data: what fits together, what is refused, and the order of batches."""

from __future__ import annotations

import json
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import warm_python
from flowmo.codec import Shard, write_shard
from flowmo.errors import DataError, FlowMoError, TokenFileError
from flowmo.generation import to_sequence, to_tokens
from flowmo.quantize.tokens import Tokens
from flowmo.training.data.generator_data import data_and_config, held_out_data
from flowmo.training.data.token_data import TokenLoader, TokenSet, read_token_set


def shard(count: int = 5, first: int = 0, **changes: object) -> Shard:
    indices = torch.randint(512, (count, 4, 2), generator=torch.Generator().manual_seed(first))
    whole = Shard(
        Tokens(indices, 9, (32, 32)), [f"{first + i}" for i in range(count)], torch.arange(count) % 3, 7, "crop", None
    )
    return replace(whole, **changes)  # type: ignore[arg-type]


def test_shards_of_a_folder_are_one_set(tmp_path: Path) -> None:
    """Another tokenizer's too: all it takes is integers, labels and a fingerprint."""
    one, two = shard(5, 0, classes=list("abc")), shard(4, 5, classes=list("abc"))
    write_shard(tmp_path / "1.shard", one)
    write_shard(tmp_path / "2.safetensors", two)
    (tmp_path / "notes.txt").write_text("no shard")
    data = read_token_set(tmp_path)
    assert len(data) == 9
    assert list(data.names) == [str(i) for i in range(9)]
    assert data.classes == ["a", "b", "c"]
    assert data.num_classes == 3
    assert data.layout.fingerprint == "00000007"
    expected = torch.cat([one.tokens.indices, two.tokens.indices]).flatten(1)
    assert torch.equal(data.rows(range(9))[0], expected)
    assert [part.dtype for part in data.shards] == [np.uint16, np.uint16]
    assert data.labels.dtype == np.uint8
    mixed = [8, 0, 4, 5, 0]
    assert torch.equal(data.rows(mixed)[0], expected[mixed])
    assert data.rows(mixed)[1].tolist() == [0, 0, 1, 0, 0]
    assert len(read_token_set(str(tmp_path / "*.shard"))) == 5
    thirds = read_token_set(tmp_path / "1.shard", bits_per_group=6)
    cut, _ = thirds.rows(range(5))
    assert torch.equal(cut, to_sequence(one.tokens, 6))
    assert cut.shape == (5, 12)
    assert cut.max() < 64
    assert read_token_set(tmp_path, class_names=list("abcd")).num_classes == 4


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="only Linux tells what a process has mapped")
def test_tokens_stay_in_their_file(tmp_path: Path) -> None:
    """A reader of 64 MB of tokens takes a few of its own: what is mapped is shared with every other process."""
    indices = torch.randint(2**9, (60_000, 256, 2), dtype=torch.int16)
    path = tmp_path / "large.shard"
    names = [f"{i}" for i in range(len(indices))]
    write_shard(path, Shard(Tokens(indices, 9, (256, 256)), names, torch.arange(60_000) % 1000, 7, "crop", None))
    expected = indices[[0, 59_999]].flatten(1).tolist()
    program = f"""
import json, re
from pathlib import Path
from flowmo.training.data.token_data import read_token_set

def own():
    return int(re.search(r"RssAnon:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) * 1024

before = own()
data = read_token_set({str(path)!r})
rows = data.rows([0, 59_999])[0].tolist()
print(json.dumps([own() - before, {str(path)!r} in Path("/proc/self/maps").read_text(), rows]))
"""
    words, environment = [warm_python.python(), "-c", program], warm_python.environment()
    done = subprocess.run(words, env=environment, capture_output=True, text=True, check=True)
    own, mapped, rows = json.loads(done.stdout)
    assert rows == expected
    assert mapped
    assert own < path.stat().st_size / 2, "as int64 they would be four times the file"


@pytest.mark.parametrize(
    ("second", "said"),
    [
        ({"fingerprint": 8}, "made by the tokenizer 00000008"),
        (
            {"tokens": Tokens(torch.zeros(5, 4, 2, dtype=torch.int64), 7, (32, 32))},
            "4 tokens of 14 bits in groups of 7",
        ),
        ({"tokens": Tokens(torch.zeros(5, 4, 2, dtype=torch.int64), 9, (64, 64))}, "images of 64x64"),
        ({"labels": None}, "has no labels"),
        ({"classes": list("abc")}, "name their classes differently"),
        ({"labels": torch.full((5,), -1)}, "counted from 0, got -1"),
    ],
)
def test_shards_that_do_not_fit_together(tmp_path: Path, second: dict, said: str) -> None:
    """Mixed bit widths, other tokenizers, no labels."""
    write_shard(tmp_path / "1.shard", shard())

    def add_and_read() -> None:
        write_shard(tmp_path / "2.shard", shard(**second))
        read_token_set(tmp_path)

    with pytest.raises(FlowMoError, match=said):
        add_and_read()


def test_other_bad_data(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="flowmo tokenize DATA"):
        read_token_set(tmp_path)
    write_shard(tmp_path / "1.shard", shard())
    with pytest.raises(DataError, match="2 names of classes do not fit labels up to 2"):
        read_token_set(tmp_path, class_names=["a", "b"])
    with pytest.raises(FlowMoError, match="18 is not a multiple of bits_per_group 5"):
        read_token_set(tmp_path, bits_per_group=5)
    content = bytearray((tmp_path / "1.shard").read_bytes())
    content[-3] ^= 1
    (tmp_path / "1.shard").write_bytes(content)
    with pytest.raises(TokenFileError, match="checksum"):
        read_token_set(tmp_path)


@pytest.fixture
def data(tmp_path: Path) -> TokenSet:
    write_shard(tmp_path / "a.shard", shard(20))
    return read_token_set(tmp_path / "a.shard")


def taken(loader: TokenLoader, batches: int) -> list[str]:
    iterator = iter(loader)
    return [name for _ in range(batches) for name in next(iterator).names]


def test_order_follows_seed_and_position(data: TokenSet) -> None:
    whole = taken(TokenLoader(data, 6, seed=1), 10)
    assert sorted(whole[:20]) == sorted(whole[20:40]) == sorted(data.names)  # an epoch is a permutation
    assert whole[:20] != whole[20:40]
    assert taken(TokenLoader(data, 6, seed=1, start=18), 7) == whole[18:]
    assert taken(TokenLoader(data, 6, seed=2), 10) != whole
    halves = [taken(TokenLoader(data, 3, seed=1, rank=r, world=2), 10) for r in range(2)]
    assert [name for pair in zip(*halves, strict=True) for name in pair] == whole


def test_batches_carry_their_labels_and_split_like_images(data: TokenSet) -> None:
    batch = next(iter(TokenLoader(data, 6, seed=1)))
    places = [data.names.index(name) for name in batch.names]
    assert torch.equal(batch.tokens, data.rows(places)[0])
    assert batch.labels.tolist() == data.labels[places].tolist()
    part = batch.part(1, 3).to("cpu")
    assert part.names == batch.names[1::3]
    assert torch.equal(part.tokens, batch.tokens[1::3])
    assert torch.equal(part.labels, batch.labels[1::3])


@pytest.mark.parametrize(("bits", "joined"), [(56, 8), (18, 9), (40, 10), (13, 1)])
def test_single_bits_are_joined_for_a_generator(tmp_path: Path, bits: int, joined: int) -> None:
    """Tokens of a model of any rate; a sequence of 256 x 56 bits would be 14,336 long.

    Those that follow one another are joined, since they stand in order of their weight.
    """
    indices = torch.randint(2, (6, 4, bits), generator=torch.Generator().manual_seed(0))
    whole = shard(6, tokens=Tokens(indices, 1, (32, 32)))
    write_shard(tmp_path / "s", whole)
    data, config = data_and_config(str(tmp_path / "s"), "tiny")
    assert (data.bits_per_group, config.bits_per_group) == (joined, joined)
    assert config.sequence_length == 4 * bits // joined
    assert (data.bit_order, config.bit_order) == ("consecutive", "consecutive")
    sequence = data.rows(range(6))[0]
    assert torch.equal(sequence, to_sequence(whole.tokens, joined, "consecutive"))
    assert torch.equal(sequence[:, 0] & 1, indices[:, 0, 0])
    assert torch.equal(sequence[:, 0] >> joined - 1, indices[:, 0, joined - 1])
    assert data_and_config(str(tmp_path / "s"), "tiny", ["bits_per_group=1"])[1].sequence_length == 4 * bits


def test_held_out_tokens_come_in_the_order_of_those_to_train_on(tmp_path: Path) -> None:
    whole = shard(6, tokens=Tokens(torch.randint(512, (6, 4, 3)), 9, (32, 32)))
    write_shard(tmp_path / "s", whole)
    data, config = data_and_config(str(tmp_path / "s"), "tiny", ["bit_order=consecutive"])
    held = held_out_data(str(tmp_path / "s"), data, config.num_classes)
    assert torch.equal(held.rows(range(6))[0], data.rows(range(6))[0])
    assert not torch.equal(held.rows(range(6))[0], to_sequence(whole.tokens, 9))
    assert to_tokens(held.rows(range(6))[0], config) == whole.tokens
