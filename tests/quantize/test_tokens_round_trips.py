"""Tokens in the forms that other programs want, and back."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from flowmo.errors import ConfigError, TokenFileError
from flowmo.presets import tiny
from flowmo.quantize.tokens import Tokens
from flowmo.tokenizer import FlowMo


def some(count: int, bits: int = 9, seed: int = 0) -> Tokens:
    generator = torch.Generator().manual_seed(seed)
    return Tokens(torch.randint(0, 2**bits, (count, 16, 2), generator=generator), bits, (32, 32))


@settings(max_examples=30, deadline=None)
@given(bits=st.integers(1, 24), count=st.integers(0, 5), seed=st.integers(0, 9))
def test_numpy_and_back(bits: int, count: int, seed: int) -> None:
    tokens = some(count, bits, seed)
    array = tokens.numpy()
    assert array.dtype == (np.uint8 if bits <= 8 else np.uint16 if bits <= 16 else np.uint32)
    assert Tokens.from_numpy(array, bits, (32, 32)) == tokens
    assert Tokens(torch.from_numpy(array.astype(np.int64)), bits, (32, 32)) == tokens


@settings(max_examples=30, deadline=None)
@given(sizes=st.lists(st.integers(0, 4), min_size=1, max_size=4))
def test_slices_of_a_concatenation_are_its_parts(sizes: list[int]) -> None:
    parts = [some(size, seed=i) for i, size in enumerate(sizes)]
    whole = Tokens.concatenate(parts)
    ends = np.cumsum([0, *sizes])
    assert [whole[a:b] for a, b in pairwise(ends.tolist())] == parts


@settings(max_examples=30, deadline=None)
@given(
    kept=st.lists(st.booleans(), min_size=5, max_size=5), start=st.integers(-6, 6), step=st.sampled_from([-2, -1, 1])
)
def test_images_are_chosen_as_from_an_array(kept: list[bool], start: int, step: int) -> None:
    tokens = some(5)
    rows = np.flatnonzero(kept)
    wanted = Tokens.from_numpy(tokens.numpy()[rows], 9, (32, 32))
    for key in (rows.tolist(), rows, np.array(kept), torch.tensor(kept)):
        assert tokens[key] == wanted
    assert np.array_equal(tokens[start::step].numpy(), tokens.numpy()[start::step])
    assert Tokens.concatenate(list(tokens)) == tokens
    if -5 <= start < 5:
        assert np.array_equal(tokens[start].numpy(), tokens.numpy()[[start]])
    else:
        with pytest.raises(IndexError):
            tokens[start]


def test_only_images_are_chosen() -> None:
    with pytest.raises(IndexError):
        some(5)[0, 1]
    with pytest.raises(IndexError, match="indexed by image"):
        some(5)[[[0], [1]]]


def test_numpy_and_torch_take_them() -> None:
    tokens = some(3)
    assert np.array_equal(np.asarray(tokens), tokens.numpy())
    assert np.asarray(tokens).dtype == np.uint16
    assert np.asarray(tokens, dtype=np.int64).dtype == np.int64
    assert Tokens(torch.from_numpy(np.asarray(tokens)), 9, (32, 32)) == tokens
    assert Tokens(tokens.indices.to(torch.uint16), 9, (32, 32)) == tokens


def test_they_are_shown_in_a_line() -> None:
    assert repr(some(3)) == (
        "Tokens(images=3, num_tokens=16, num_groups=2, bits_per_group=9, image_size=(32, 32)): 36 bytes an image"
    )


def test_what_does_not_go_together_is_refused() -> None:
    with pytest.raises(ConfigError, match="different kinds"):
        Tokens.concatenate([some(1), Tokens(some(1).indices, 9, (64, 64))])
    with pytest.raises(ConfigError, match="no tokens"):
        Tokens.concatenate([])
    with pytest.raises(ConfigError, match=r"only Tokens are concatenated, not .* ndarray"):
        Tokens.concatenate([some(1).numpy()])  # type: ignore[list-item]
    with pytest.raises(ConfigError, match=r"Tokens\.from_numpy takes arrays"):
        Tokens(some(1).numpy(), 9, (32, 32))  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=r"given to Tokens\(\.\.\.\) itself"):
        Tokens.from_numpy(some(1).indices, 9, (32, 32))  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="integers"):
        Tokens.from_numpy(np.zeros((1, 16, 2)), 9, (32, 32))
    with pytest.raises(ConfigError, match="lie between 0 and 511"):
        Tokens.from_numpy(np.full((1, 16, 2), 512), 9, (32, 32))


def test_saved_and_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tokens = some(3, 14)
    monkeypatch.setenv("HOME", str(tmp_path))
    path = tokens.save("~/made/tokens.npz")
    assert path == tmp_path / "made" / "tokens.npz"
    assert Tokens.load("~/made/tokens.npz") == tokens
    assert Tokens.load(path) == tokens
    assert path.stat().st_size < 2000  # two bytes an integer, not eight
    with pytest.raises(ConfigError, match=r"ends in \.npz"):
        tokens.save(tmp_path / "tokens.bin")


def test_other_files_are_refused_and_execute_nothing(tmp_path: Path) -> None:
    with pytest.raises(TokenFileError, match="there is no file"):
        Tokens.load(tmp_path / "absent.npz")
    (tmp_path / "a.npz").write_bytes(b"PK\x03\x04 damaged")
    np.savez(tmp_path / "b.npz", tokens=np.array([{"a": 1}], dtype=object), bits_per_group=9, image_size=(32, 32))
    np.savez(tmp_path / "c.npz", tokens=some(1).numpy() + 500, bits_per_group=9, image_size=(32, 32))
    np.savez(tmp_path / "d.npz", tokens=some(1).numpy())
    for name in "abcd":
        with pytest.raises(TokenFileError, match=r"is no file of Tokens\.save") as error:
            Tokens.load(tmp_path / f"{name}.npz")
        assert "pickle" not in str(error.value)  # NumPy would have it read by what executes it


def test_images_of_tokens() -> None:
    model, tokens = FlowMo(tiny()).eval(), some(2)
    images = tokens.to_images(model, num_steps=1, seed=3)
    assert torch.equal(images, model.detokenize(tokens, num_steps=1, seed=3))
    pictures = tokens.to_pil(model, num_steps=1, seed=3)
    assert [picture.size for picture in pictures] == [(32, 32)] * 2
    assert np.abs(np.asarray(pictures[0]) / 127.5 - 1 - images[0].permute(1, 2, 0).numpy()).max() < 0.005
