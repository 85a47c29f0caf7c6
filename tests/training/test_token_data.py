"""Shards as training data: what fits together, what is refused, and the order of batches."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from flowmo.codec import Shard, write_shard
from flowmo.errors import DataError, FlowMoError, TokenFileError
from flowmo.quantize.tokens import Tokens
from flowmo.training.token_data import TokenLoader, TokenSet, read_token_set


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
    assert data.names == [str(i) for i in range(9)]
    assert data.classes == ["a", "b", "c"]
    assert data.num_classes == 3
    assert data.layout.fingerprint == "00000007"
    expected = torch.cat([one.tokens.indices, two.tokens.indices]).flatten(1)
    assert torch.equal(data.rows(range(9))[0], expected)
    assert data.sequences.dtype == np.uint16
    assert len(read_token_set(str(tmp_path / "*.shard"))) == 5
    thirds = read_token_set(tmp_path / "1.shard", bits_per_group=6)
    assert thirds.sequences.shape == (5, 12)
    assert thirds.sequences.max() < 64
    assert thirds.sequences.dtype == np.uint8
    assert read_token_set(tmp_path, class_names=list("abcd")).num_classes == 4


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
