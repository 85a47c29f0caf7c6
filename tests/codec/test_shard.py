"""Token shards: round trips, the documented layout, and TokenFileError for anything else."""

from __future__ import annotations

import json
import os
import random

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from flowmo.codec import FITS, Shard, map_shard, read_shard, write_shard
from flowmo.codec.shard import COLUMNS, SETTINGS, _checksum
from flowmo.errors import ConfigError, TokenFileError
from flowmo.quantize.tokens import Tokens


def make_shard(n=5, bits=9, labels=True, sizes=True, names=None, fit="crop", fingerprint=0x0BADF00D, tokens=16, g=2):
    generator = torch.Generator().manual_seed(n)
    return Shard(
        Tokens(torch.randint(2**bits, (n, tokens, g), generator=generator), bits, (64, 48)),
        [f"photos/{i}.jpg" for i in range(n)] if names is None else names,
        torch.randint(1000, (n,), generator=generator) if labels else None,
        fingerprint,
        fit,
        torch.randint(1, 5000, (n, 2), generator=generator) if sizes else None,
    )


def assert_same(a: Shard, b: Shard) -> None:
    assert a.tokens == b.tokens
    assert (a.names, a.fingerprint, a.fit) == (b.names, b.fingerprint, b.fit)
    for one, other in ((a.labels, b.labels), (a.original_sizes, b.original_sizes)):
        assert one is other is None or (one.dtype == other.dtype and torch.equal(one, other))


@settings(max_examples=60)
@given(st.data())
def test_round_trip(tmp_path_factory, data):
    n = data.draw(st.integers(0, 6))
    shard = make_shard(
        n=n,
        bits=data.draw(st.integers(1, 24)),
        labels=data.draw(st.booleans()),
        sizes=data.draw(st.booleans()),
        names=data.draw(st.lists(st.text(), min_size=n, max_size=n)),
        fit=data.draw(st.sampled_from(FITS)),
        fingerprint=data.draw(st.integers(0, 2**32 - 1)),
        tokens=data.draw(st.integers(1, 20)),
        g=data.draw(st.integers(1, 4)),
    )
    path = tmp_path_factory.getbasetemp() / "round-trip.safetensors"
    write_shard(path, shard)
    assert_same(read_shard(path), shard)
    assert_same(read_shard(str(path), shard.fingerprint), shard)
    mapped = map_shard(path)
    assert torch.equal(torch.from_numpy(mapped.integers.astype(np.int64)), shard.tokens.indices)
    assert mapped.integers.dtype.itemsize <= 2 or shard.tokens.bits_per_group > 16
    assert (mapped.labels is None) == (shard.labels is None)
    assert mapped.labels is None or mapped.labels.tolist() == shard.labels.tolist()
    assert mapped.names == shard.names
    about = mapped.about
    assert (about.fingerprint, about.fit, about.tokens.image_size) == (shard.fingerprint, shard.fit, (64, 48))


def test_names_that_are_not_valid_text_survive(tmp_path):
    name = os.fsdecode(b"caf\xe9 \xff.jpg")  # as a folder listing gives them
    write_shard(tmp_path / "s", make_shard(n=1, names=[name]))
    assert os.fsencode(read_shard(tmp_path / "s").names[0]) == b"caf\xe9 \xff.jpg"


@pytest.mark.parametrize(
    ("bits", "dtype"),
    [(1, torch.uint8), (8, torch.uint8), (9, torch.uint16), (16, torch.uint16), (17, torch.int32), (24, torch.int32)],
)
def test_any_safetensors_reader_sees_the_documented_layout(tmp_path, bits, dtype):
    path = tmp_path / "s.safetensors"
    shard = make_shard(bits=bits)
    write_shard(path, shard)
    stored = load_file(path)
    assert {name: (t.dtype, tuple(t.shape)) for name, t in stored.items()} == {
        "tokens": (dtype, (5, 16, 2)),
        "labels": (torch.int64, (5,)),
        "original_sizes": (torch.int32, (5, 2)),
    }
    assert torch.equal(stored["tokens"].to(torch.int64), shard.tokens.indices)
    with safe_open(path, framework="pt") as stream:
        metadata = stream.metadata()
    assert metadata.pop("crc32")
    assert metadata == {
        "format": "flowmo-tokens-1",
        "bits_per_group": str(bits),
        "bits_per_token": str(2 * bits),
        "image_size": "[64, 48]",
        "fingerprint": "0badf00d",
        "fit": "crop",
        "names": json.dumps(shard.names),
    }
    assert os.listdir(tmp_path) == ["s.safetensors"]


def test_a_thousand_mutations_never_give_other_contents(tmp_path):
    path = tmp_path / "s.safetensors"
    shard = make_shard(n=3, tokens=4)
    write_shard(path, shard)
    data, rng, refused = path.read_bytes(), random.Random(0), 0
    for i in range(1000 + len(data)):
        changed = bytearray(data)
        kind = i % 4 if i >= len(data) else 4
        if kind == 0:
            del changed[rng.randrange(len(data)) :]
        elif kind == 1:
            changed[rng.randrange(len(data)) :] += rng.randbytes(rng.randrange(1, 20))
        elif kind == 2:
            changed[rng.randrange(len(data))] = rng.randrange(256)
        elif kind == 3:  # another byte of the JSON header that keeps it JSON: a digit or a letter
            place = rng.choice([p for p in range(8, len(data)) if chr(data[p]).isalnum()])
            changed[place] = rng.choice(b"0123456789abcIUF")
        else:
            changed[i] ^= 1 << rng.randrange(8)
        path.write_bytes(changed)
        try:
            again = read_shard(path)
        except TokenFileError:
            refused += 1
            with pytest.raises(TokenFileError):
                map_shard(path)
            continue
        assert_same(again, shard)  # white space in the header, or a byte replaced by itself
    assert refused > 1000


def rewrite(path, tensors=(), metadata=()):
    """Change the shard at ``path``, and its checksum to agree."""
    stored = load_file(path)
    with safe_open(path, framework="pt") as stream:
        info = stream.metadata()
    for target, changes in ((stored, dict(tensors)), (info, dict(metadata))):
        for name, value in changes.items():
            target.pop(name, None)
            if value is not None:
                target[name] = value
    known = {name: stored[name] for name in COLUMNS if name in stored}
    if all(name in info for name in ("format", *SETTINGS)) and torch.bfloat16 not in [t.dtype for t in known.values()]:
        info["crc32"] = _checksum(info, known)
    save_file(stored, path, info)


@pytest.mark.parametrize(
    ("tensors", "metadata", "message"),
    [
        ({}, {"format": "flowmo-tokens-2"}, "flowmo-tokens-1"),
        ({}, {"format": None}, "flowmo-tokens-1"),
        ({}, {"names": None, "fit": None}, "fit, names missing"),
        ({"tokens": None}, {}, "tokens missing"),
        ({}, {"bits_per_group": "0"}, "tokens are stored as"),
        ({}, {"bits_per_group": "nine"}, "nine"),
        ({}, {"bits_per_group": "10"}, "bits_per_token 18, found 20"),
        ({}, {"bits_per_token": "27"}, "bits_per_token 27"),
        ({}, {"image_size": "[64]"}, "image_size"),
        ({}, {"image_size": '"64"'}, "image_size"),
        ({}, {"image_size": "[0, 64]"}, "image_size"),
        ({}, {"image_size": "64,"}, "cannot read"),
        ({}, {"image_size": "[" * 100_000}, "cannot read"),
        ({}, {"names": '{"a": 1}'}, "not a list"),
        ({}, {"names": "[1, 2, 3, 4, 5]"}, "one text an image"),
        ({}, {"names": '["a"]'}, "1 names"),
        ({}, {"fingerprint": "-1"}, "fingerprint"),
        ({}, {"fingerprint": "100000000"}, "fingerprint"),
        ({}, {"fingerprint": "model"}, "model"),
        ({}, {"fit": "squeeze"}, "fit"),
        ({"tokens": torch.full((5, 16, 2), 512).to(torch.uint16)}, {}, "0 and 511"),
        ({"tokens": torch.zeros(5, 16, 2)}, {}, "stored as torch.float32"),
        ({"tokens": torch.zeros(5, 16, 2, dtype=torch.bfloat16)}, {}, "stored as torch.bfloat16"),
        ({"tokens": torch.zeros(5, 16, dtype=torch.uint16)}, {}, "shape"),
        ({"labels": torch.zeros(4, dtype=torch.int64)}, {}, "labels"),
        ({"labels": torch.zeros(5)}, {}, "labels"),
        ({"original_sizes": torch.zeros(5, 2, dtype=torch.int32)}, {}, "original_sizes"),
        ({"original_sizes": torch.ones(5, dtype=torch.int32)}, {}, "original_sizes"),
    ],
)
def test_shards_that_lie_are_refused(tmp_path, tensors, metadata, message):
    path = tmp_path / "s.safetensors"
    write_shard(path, make_shard())
    rewrite(path, tensors, metadata)
    with pytest.raises(TokenFileError, match=message) as error:
        read_shard(path)
    assert str(path) in str(error.value)
    with pytest.raises(TokenFileError, match=message) as error:
        map_shard(path)
    assert str(path) in str(error.value)


@pytest.mark.parametrize("column", ["tokens", "names", "labels", "original_sizes"])
def test_the_last_of_many_images_that_lies_is_refused_where_they_stay_in_the_file(tmp_path, monkeypatch, column):
    """Images are looked at a few at a time, each of them."""
    monkeypatch.setattr("flowmo.codec.shard.ROWS_AT_ONCE", 2)
    path, shard = tmp_path / "s.safetensors", make_shard(n=7)
    write_shard(path, shard)
    assert len(map_shard(path).integers) == 7
    changed = torch.cat([shard.tokens.indices[:6], torch.full((1, 16, 2), 512)]).to(torch.uint16)
    labels = torch.cat([shard.labels[:6], torch.tensor([-3])])
    sizes = torch.cat([shard.original_sizes[:6], torch.tensor([[0, 1]])]).to(torch.int32)
    names = {"names": json.dumps([*shard.names, "one more"])}
    rewrite(
        path,
        {column: {"tokens": changed, "labels": labels, "original_sizes": sizes}[column]} if column != "names" else {},
        names if column == "names" else {},
    )
    for read in (read_shard, map_shard):
        with pytest.raises(TokenFileError):
            read(path)


def test_unknown_tensors_and_metadata_are_passed_over(tmp_path):
    path = tmp_path / "s.safetensors"
    write_shard(path, make_shard())
    rewrite(path, {"scores": torch.zeros(5)}, {"note": "mine"})
    assert_same(read_shard(path), make_shard())


def test_another_encoder_and_unreadable_files(tmp_path):
    path = tmp_path / "s.safetensors"
    write_shard(path, make_shard())
    with pytest.raises(TokenFileError, match=r"0badf00d.*00000002"):
        read_shard(path, fingerprint=2)
    (tmp_path / "text").write_text("not a shard, but long enough to be looked into")
    save_file({"weight": torch.zeros(3)}, tmp_path / "weights")
    (tmp_path / "empty").touch()
    for name in ("text", "weights", "empty", "missing", "."):
        with pytest.raises(TokenFileError, match=str(tmp_path)):
            read_shard(tmp_path / name)
    with pytest.raises(TokenFileError, match="cannot write"):
        write_shard(tmp_path / "empty" / "s", make_shard())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"names": ["a", "b"]}, "2 names"),
        ({"names": "abcde"}, "one text an image"),
        ({"fit": "none"}, "fit"),
        ({"fingerprint": 2**32}, "fingerprint"),
    ],
)
def test_bad_values_are_refused_before_writing(changes, message):
    with pytest.raises(ConfigError, match=message):
        make_shard(**changes)


@pytest.mark.parametrize("labels", [torch.zeros(4, dtype=torch.int64), torch.zeros(5), [0] * 5])
def test_bad_labels_are_refused(labels):
    good = make_shard()
    with pytest.raises(ConfigError, match="labels"):
        Shard(good.tokens, good.names, labels, 0, "crop", None)
