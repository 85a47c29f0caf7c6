"""The .flowmo file: what is written is read back, and nothing but TokenFileError comes out of a bad file."""

from __future__ import annotations

import io
import os
import random
import struct
import zlib

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from flowmo.codec import FITS, HEADER_SIZE, TokenFile, decode_file, encode_file, read_file, write_file
from flowmo.errors import ConfigError, TokenFileError
from flowmo.quantize.tokens import Tokens


def make_file(n=256, g=2, bits=9, size=(256, 256), fit="crop", original=(480, 640), fingerprint=0x0BADF00D, seed=0):
    indices = torch.randint(2**bits, (1, n, g), generator=torch.Generator().manual_seed(seed))
    return TokenFile(Tokens(indices, bits, size), fingerprint, fit, original)


def with_crc(data: bytes) -> bytes:
    return data[:20] + struct.pack("<I", zlib.crc32(data[24:], zlib.crc32(data[:20]))) + data[24:]


SAMPLES = [
    make_file(),
    make_file(n=64, size=(64, 64), fit="pad", seed=1),
    make_file(n=256, g=4, bits=14, fit="stretch", seed=2),
    make_file(n=7, g=1, bits=5, size=(8, 16), original=(1, 65535), fingerprint=2**32 - 1, seed=3),  # 5 padding bits
]

side = st.integers(1, 65535)


@given(st.data())
def test_round_trip(data):
    bits = data.draw(st.integers(1, 24))
    file = make_file(
        n=data.draw(st.integers(1, 300)),
        g=data.draw(st.integers(1, 255 // bits)),
        bits=bits,
        size=data.draw(st.tuples(side, side)),
        fit=data.draw(st.sampled_from(FITS)),
        original=data.draw(st.tuples(side, side)),
        fingerprint=data.draw(st.integers(0, 2**32 - 1)),
    )
    encoded = encode_file(file)
    assert decode_file(encoded) == file
    assert decode_file(encoded, file.fingerprint) == file


def test_sizes_are_as_promised():
    assert HEADER_SIZE == 24
    assert len(encode_file(make_file())) == 24 + 576
    assert len(encode_file(make_file(n=64))) == 24 + 144


def test_header_byte_by_byte():
    data = encode_file(make_file(n=2, g=2, bits=3, size=(0x0102, 0x0304), fit="pad", original=(0x0506, 0x0708)))
    assert data[:20].hex() == "464d4f" + "11" + "0df0ad0b" + "0201" + "0403" + "0605" + "0807" + "0200" + "06" + "03"
    assert with_crc(data) == data


def mutate(data: bytes, rng: random.Random) -> bytes:
    """One of the ways a file goes wrong, or a lie told with a correct checksum."""
    changed = bytearray(data)
    kind = rng.randrange(8)
    if kind == 0:  # flipped bits
        for _ in range(rng.choice([1, 1, 2, 8])):
            changed[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    elif kind == 1:  # truncation
        del changed[rng.randrange(len(data)) :]
    elif kind == 2:  # insertion or appending
        place = rng.choice([len(data), rng.randrange(len(data))])
        changed[place:place] = rng.randbytes(rng.randrange(1, 40))
    elif kind == 3:  # a foreign file, with or without our magic
        changed = bytearray(rng.choice([b"", b"FMO", b"FMO\x01"]) + rng.randbytes(rng.randrange(700)))
    elif kind == 4:  # a range overwritten or lost
        start = rng.randrange(len(data))
        changed[start : start + rng.randrange(1, 40)] = rng.choice([b"", bytes(rng.randrange(1, 40))])
    elif kind == 5:  # random header fields, checksum corrected
        for _ in range(rng.randrange(1, 4)):
            changed[rng.randrange(3, 20)] = rng.choice([0, 1, 255, rng.randrange(256)])
        changed = bytearray(with_crc(bytes(changed)))
    elif kind == 6:  # a random header whose counts fit a payload of random bits, checksum correct
        n, token_bits, group_bits = rng.choice([0, 1, rng.randrange(500)]), rng.randrange(256), rng.randrange(30)
        sizes = [rng.choice([0, 1, 64, 65535]) for _ in range(4)]
        fields = struct.pack(
            "<3sBIHHHHHBB", b"FMO", rng.choice([1, 1, 17, rng.randrange(256)]), 7, *sizes, n, token_bits, group_bits
        )
        changed = bytearray(with_crc(fields + bytes(4) + rng.randbytes(-(-n * token_bits // 8))))
    else:  # the payload changed, checksum corrected
        changed[rng.randrange(24, len(data))] = rng.randrange(256)
        changed = bytearray(with_crc(bytes(changed)))
    return bytes(changed)


def test_ten_thousand_mutations():
    """Each gives TokenFileError, or is a valid file by every rule: then writing it again gives the same bytes."""
    rng = random.Random(0)
    originals = [encode_file(file) for file in SAMPLES]
    refused = accepted = 0
    for _ in range(10_000):
        data = mutate(rng.choice(originals), rng)
        if data in originals:
            continue
        try:
            file = decode_file(data)
        except TokenFileError:
            refused += 1
            continue
        accepted += 1
        assert data == with_crc(data), "a wrong checksum was let through"
        assert encode_file(file) == data
        assert min(*file.tokens.image_size, *file.original_size) > 0
        assert file.tokens.bits_per_image <= 8 * (len(data) - HEADER_SIZE) < file.tokens.bits_per_image + 8
    assert refused > 5000
    assert accepted > 500


def test_every_single_bit_flip_and_truncation_is_refused():
    data = encode_file(make_file(n=64))
    for i in range(8 * len(data)):
        changed = bytearray(data)
        changed[i // 8] ^= 1 << i % 8
        with pytest.raises(TokenFileError):
            decode_file(bytes(changed))
    for length in range(len(data)):
        with pytest.raises(TokenFileError):
            decode_file(data[:length])


@pytest.mark.parametrize(
    ("offset", "replacement", "message"),
    [
        (0, b"GIF", "not a .flowmo file"),
        (3, b"\x03", "format version 3"),
        (3, b"\x41", "fit 4"),
        (8, b"\0\0", "image_size"),
        (14, b"\0\0", "original_size"),
        (16, b"\0\1", "announces 576"),
        (16, b"\0\0", "announces 0"),
        (18, b"\x09", "too long"),
        (18, b"\x13", "truncated"),
        (19, b"\0", "bits_per_group"),
        (19, b"\x19", "bits_per_group"),
        (19, b"\x07", "not a multiple"),
        (20, b"\0\0\0\0", "checksum"),
    ],
)
def test_the_reason_is_named(offset, replacement, message):
    data = encode_file(make_file(n=300 if message == "announces 576" else 256))
    changed = data[:offset] + replacement + data[offset + len(replacement) :]
    with pytest.raises(TokenFileError, match=message):
        decode_file(changed if message == "checksum" else with_crc(changed))


def test_no_tokens_at_all_is_refused():
    data = bytearray(encode_file(make_file())[:24])
    data[16:18] = b"\0\0"
    with pytest.raises(TokenFileError, match="num_tokens"):
        decode_file(with_crc(bytes(data)))


def test_another_encoders_file_is_refused_with_both_fingerprints():
    with pytest.raises(TokenFileError, match=r"0badf00d.*00000001.*load the model") as error:
        decode_file(encode_file(make_file()), fingerprint=1)
    assert "another encoder" in str(error.value)


def test_files_on_disk(tmp_path):
    path = tmp_path / "new" / "a.flowmo"
    for file in SAMPLES:  # each replaces the one before
        write_file(path, file)  # makes the folder
        assert read_file(path) == file
        assert read_file(str(path), file.fingerprint) == file
    assert os.listdir(path.parent) == ["a.flowmo"]
    (tmp_path / "plain").touch()
    assert path.stat().st_mode == (tmp_path / "plain").stat().st_mode  # not private, as temporary files often are
    with pytest.raises(TokenFileError, match=r"a\.flowmo.*another encoder"):
        read_file(path, fingerprint=5)


def test_unreadable_and_foreign_files(tmp_path):
    picture = io.BytesIO()
    Image.effect_noise((64, 64), 50).save(picture, "PNG")
    foreign = {"p.png": picture.getvalue(), "empty": b"", "text": b"FMOre words than a header would take", "long": b""}
    for name, content in foreign.items():
        (tmp_path / name).write_bytes(content)
    os.truncate(tmp_path / "long", 10**12)  # sparse; reading it whole would end in a MemoryError
    for name in foreign:
        with pytest.raises(TokenFileError, match=f"{name}: "):
            read_file(tmp_path / name)
    for path in (tmp_path / "missing", tmp_path, "nul\0"):
        with pytest.raises(TokenFileError, match="cannot read"):
            read_file(path)


def test_a_failed_write_leaves_the_old_file_and_no_litter(tmp_path):
    path = tmp_path / "folder"
    path.mkdir()
    (path / "kept").touch()
    for target in (path, path / "kept" / "a.flowmo", "nul\0"):
        with pytest.raises(TokenFileError, match="cannot write"):
            write_file(target, make_file())
    assert os.listdir(tmp_path) == ["folder"]
    assert os.listdir(path) == ["kept"]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"fingerprint": -1}, "fingerprint"),
        ({"fingerprint": 2**32}, "fingerprint"),
        ({"fingerprint": "0badf00d"}, "fingerprint"),
        ({"fit": "squeeze"}, "crop, pad, stretch"),
        ({"original": (0, 5)}, "original_size"),
        ({"original": (5, 65536)}, "at most 65535"),
        ({"size": (65536, 5)}, "at most 65535"),
        ({"n": 2**20 + 1, "g": 1, "bits": 1}, "num_tokens is 1048577"),
        ({"g": 16, "bits": 16}, "bits_per_token is 256"),
    ],
)
def test_what_the_format_cannot_hold_is_refused_before_writing(settings, message):
    with pytest.raises(ConfigError, match=message):
        make_file(**settings)


def test_one_image_a_file():
    tokens = Tokens(torch.zeros(2, 4, 1, dtype=torch.int64), 9, (8, 8))
    for some in (tokens, tokens[:0]):
        with pytest.raises(ConfigError, match="one image"):
            TokenFile(some, 0, "crop", (8, 8))


def test_an_image_of_many_tokens_has_a_wider_header():
    tokens = Tokens(torch.randint(0, 2, (1, 70_000, 1)), 1, (4000, 4480))
    file = TokenFile(tokens, 7, "whole", (3999, 4475))
    data = encode_file(file)
    assert data[3] == 2 | 3 << 4
    assert len(data) == HEADER_SIZE + 2 + 70_000 // 8
    again = decode_file(data)
    assert again.tokens == tokens
    assert (again.fit, again.original_size) == ("whole", (3999, 4475))
    for cut in (0, 10, HEADER_SIZE, HEADER_SIZE + 1, len(data) - 1):
        with pytest.raises(TokenFileError):
            decode_file(data[:cut])


def test_more_tokens_than_a_file_holds_are_refused_before_they_are_unpacked(monkeypatch):
    n = 4095 * 4095
    fields = struct.pack("<3sBIHHHHIBB", b"FMO", 2 | 3 << 4, 1, 65520, 65520, 65520, 65520, n, 1, 1)
    payload = bytes(-(-n // 8))
    monkeypatch.setattr(Tokens, "from_bytes", None)
    with pytest.raises(TokenFileError, match=f"num_tokens is {n}, but a .flowmo file holds at most 1048576"):
        decode_file(fields + struct.pack("<I", zlib.crc32(payload, zlib.crc32(fields))) + payload)
