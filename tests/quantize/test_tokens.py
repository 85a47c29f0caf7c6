"""bits <-> integers <-> bytes (Section 3.2): round trips for any sizes, the bit order, and what is refused."""

from __future__ import annotations

import time

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from flowmo.errors import ConfigError, TokenFileError
from flowmo.quantize.tokens import Tokens, bits_from_integers, integers_from_bits, payload_size


def random_tokens(b: int, n: int, g: int, bits: int, seed: int = 0, size: tuple[int, int] = (64, 48)) -> Tokens:
    generator = torch.Generator().manual_seed(seed)
    return Tokens(torch.randint(2**bits, (b, n, g), generator=generator), bits, size)


shapes = st.tuples(st.integers(0, 4), st.integers(1, 40), st.integers(1, 6), st.integers(1, 24), st.integers(0, 10**6))


@given(shapes)
def test_bits_and_integers_are_inverse(shape):
    tokens = random_tokens(*shape)
    bits = bits_from_integers(tokens.indices, tokens.bits_per_group)
    assert bits.shape == (*tokens.indices.shape, tokens.bits_per_group)
    assert bits.dtype == torch.uint8
    assert torch.equal(integers_from_bits(bits), tokens.indices)
    assert torch.equal(integers_from_bits(bits.bool()), tokens.indices)


@given(shapes)
def test_bytes_round_trip(shape):
    tokens = random_tokens(*shape)
    payloads = tokens.to_bytes()
    assert [len(p) for p in payloads] == [(tokens.bits_per_image + 7) // 8] * len(tokens)
    again = Tokens.from_bytes(
        payloads, tokens.num_tokens, tokens.bits_per_token, tokens.bits_per_group, tokens.image_size
    )
    assert again == tokens


@given(shapes)
def test_packing_is_one_big_little_endian_number(shape):
    """The same order, said with Python's own long integers instead of arrays."""
    tokens = random_tokens(*shape)
    for payload, image in zip(tokens.to_bytes(), tokens.indices.flatten(1).tolist(), strict=True):
        number = sum(integer << i * tokens.bits_per_group for i, integer in enumerate(image))
        assert payload == number.to_bytes(payload_size(tokens.num_tokens, tokens.bits_per_token), "little")


@given(st.integers(1, 24), st.data())
def test_padding_bits_must_be_zero(bits, data):
    n = data.draw(st.integers(1, 20).filter(lambda n: n * bits % 8))
    payload = bytearray(random_tokens(1, n, 1, bits).to_bytes()[0])
    payload[-1] |= 1 << data.draw(st.integers(n * bits % 8, 7))
    with pytest.raises(TokenFileError, match="after the last token"):
        Tokens.from_bytes([bytes(payload)], n, bits, bits, (8, 8))


def test_bit_order_by_hand():
    tokens = Tokens(torch.tensor([[[1, 6], [4, 3]]]), 3, (8, 8))
    assert tokens.to_bytes() == [bytes([0b00110001, 0b00000111])]


def test_the_papers_rate():
    tokens = random_tokens(2, 256, 2, 9, size=(256, 256))
    assert [len(p) for p in tokens.to_bytes()] == [576, 576]
    assert (tokens.bits_per_token, tokens.bits_per_image) == (18, 4608)
    assert tokens.bits_per_pixel == pytest.approx(0.0703, abs=1e-4)
    assert random_tokens(1, 256, 4, 14, size=(256, 256)).bits_per_pixel == pytest.approx(0.219, abs=5e-4)


def test_bits_are_the_published_models_channels(shared):
    """The released model's integers, unpacked, are its signs, channel = bit * G + group (A8)."""
    golden = np.load(shared / "golden" / "official_tiny_lo.npz")
    code = torch.from_numpy(golden["code"])  # B N K
    b, n, k = code.shape
    tokens = Tokens(torch.from_numpy(golden["indices_entropy_groups"]).reshape(b, n, k // 9), 9, (32, 32))
    bits = bits_from_integers(tokens.indices, 9)  # B N G bits
    assert torch.equal(bits.transpose(-1, -2).flatten(-2).bool(), code > 0)


def test_millions_of_tokens_take_seconds():
    tokens = random_tokens(8000, 256, 2, 9)
    start = time.perf_counter()
    payloads = tokens.to_bytes()
    again = Tokens.from_bytes(payloads, 256, 18, 9, tokens.image_size)
    assert time.perf_counter() - start < 10  # about 0.3 s on an idle core; a Python loop takes minutes
    assert again == tokens


def test_indexing_and_iteration():
    tokens = random_tokens(5, 3, 2, 9)
    assert len(tokens) == tokens.num_images == 5
    assert torch.equal(tokens[1].indices, tokens.indices[1:2])
    assert torch.equal(tokens[-1].indices, tokens.indices[4:])
    assert torch.equal(tokens[1:3].indices, tokens.indices[1:3])
    assert torch.equal(tokens[::-1].indices, tokens.indices.flip(0))
    assert len(tokens[5:]) == 0
    assert tokens[5:].to_bytes() == []
    assert [t.to_bytes()[0] for t in tokens] == tokens.to_bytes()
    assert tokens[0].image_size == tokens.image_size
    assert tokens[0].bits_per_group == 9
    assert tokens != tokens[:4]
    assert tokens != Tokens(tokens.indices, 10, tokens.image_size)
    assert tokens != "tokens"
    with pytest.raises(IndexError):
        tokens[5]


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int8, torch.int16, torch.uint16, torch.int32, torch.int64])
def test_any_integer_type_becomes_int64(dtype):
    tokens = Tokens(torch.tensor([[[3], [0]]]).to(dtype), 2, (8, 8))
    assert tokens.indices.dtype == torch.int64
    assert tokens.indices.tolist() == [[[3], [0]]]


@pytest.mark.parametrize(
    ("indices", "bits", "size", "message"),
    [
        (torch.zeros(2, 3), 9, (8, 8), "tensor of integers"),
        (torch.zeros(2, 3, 1), 9, (8, 8), "tensor of integers"),
        (torch.zeros(2, 3, 1, dtype=torch.bool), 9, (8, 8), "tensor of integers"),
        ([[[1]]], 9, (8, 8), "tensor of integers"),
        (torch.zeros(2, 3, dtype=torch.int64), 9, (8, 8), "shape"),
        (torch.zeros(2, 0, 1, dtype=torch.int64), 9, (8, 8), "shape"),
        (torch.zeros(2, 3, 0, dtype=torch.int64), 9, (8, 8), "shape"),
        (torch.tensor([[[512]]]), 9, (8, 8), "0 and 511"),
        (torch.tensor([[[-1]]]), 9, (8, 8), "0 and 511"),
        (torch.tensor([[[1]]]), 0, (8, 8), "bits_per_group"),
        (torch.tensor([[[1]]]), 25, (8, 8), "bits_per_group"),
        (torch.tensor([[[1]]]), 9.0, (8, 8), "bits_per_group"),
        (torch.tensor([[[1]]]), 9, (8, 0), "height, width"),
        (torch.tensor([[[1]]]), 9, 8, "height, width"),
        (torch.tensor([[[1]]]), 9, (8, 8.0), "height, width"),
    ],
)
def test_bad_values_are_explained(indices, bits, size, message):
    with pytest.raises(ConfigError, match=message):
        Tokens(indices, bits, size)


def test_bad_payloads_are_explained():
    payload = random_tokens(1, 4, 2, 9).to_bytes()[0]
    with pytest.raises(TokenFileError, match="payload 1 has 8 bytes"):
        Tokens.from_bytes([payload, payload[:-1]], 4, 18, 9, (8, 8))
    with pytest.raises(TokenFileError, match="payload 0 has 10 bytes"):
        Tokens.from_bytes([payload + b"\0"], 4, 18, 9, (8, 8))
    with pytest.raises(ConfigError, match="not a multiple"):
        Tokens.from_bytes([payload], 4, 18, 7, (8, 8))
    with pytest.raises(ConfigError, match="num_tokens"):
        Tokens.from_bytes([b""], 0, 18, 9, (8, 8))
    with pytest.raises(ConfigError, match="in a list"):
        Tokens.from_bytes(payload, 4, 18, 9, (8, 8))
    with pytest.raises(ConfigError, match="0 and 7"):
        bits_from_integers(torch.tensor([8]), 3)
