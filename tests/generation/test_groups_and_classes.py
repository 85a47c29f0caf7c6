"""Tokens as sequences of integers of any size, and classes by their names."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from flowmo.config import FlowMoConfig, TransformerConfig, from_dict, to_dict
from flowmo.errors import ConfigError, DataError, TokenFileError
from flowmo.generation import (
    GeneratorConfig,
    TokenLayout,
    check_tokenizer,
    find_class,
    first_name,
    read_class_names,
    to_sequence,
    to_tokens,
)
from flowmo.pipelines.class_images import check_layout
from flowmo.presets import tiny
from flowmo.quantize import make_quantizer
from flowmo.quantize.groups import regroup
from flowmo.quantize.tokens import Tokens
from flowmo.tokenizer import FlowMo

CLASSES = ["n01443537 goldfish, Carassius auratus", "n02099712 Labrador retriever", "n02123394 crane", "crane, lifter"]


@pytest.mark.parametrize("bits", [1, 2, 3, 6, 9, 18])
def test_any_group_size_holds_the_same_channels(bits: int) -> None:
    """What lookup-free quantization itself gives for groups of that size."""
    side = TransformerConfig(patch_size=8, width=64, depth=1, heads=2)
    latent = torch.randn(3, 16, 18)

    def indices(bits_per_group: int) -> torch.Tensor:
        config = FlowMoConfig(side, side, image_size=32, num_tokens=16, bits_per_group=bits_per_group)
        tokens = make_quantizer(config)(latent).tokens
        assert tokens is not None
        return tokens

    assert torch.equal(regroup(indices(9), 9, bits), indices(bits))
    assert torch.equal(regroup(indices(bits), bits, 9), indices(9))


def test_the_papers_tokens_are_512_integers_token_by_token() -> None:
    tokens = Tokens(torch.randint(512, (2, 256, 2)), 9, (256, 256))
    sequence = to_sequence(tokens, 9)
    assert sequence.shape == (2, 512)
    assert torch.equal(sequence[:, 0::2], tokens.indices[..., 0])
    config = GeneratorConfig(64, 2, 2, 10)
    assert (config.sequence_length, config.vocabulary) == (512, 512)
    assert to_tokens(sequence, config) == tokens
    thirds = GeneratorConfig(64, 2, 2, 10, bits_per_group=6)
    assert (thirds.sequence_length, thirds.vocabulary) == (768, 64)
    assert to_tokens(to_sequence(tokens, 6), thirds) == tokens


@pytest.mark.parametrize("own", [1, 3, 9])
@pytest.mark.parametrize("bits", [1, 3, 9, 18])
def test_consecutive_integers_hold_channels_in_their_order_and_come_back(own: int, bits: int) -> None:
    channels = torch.randint(2, (2, 5, 18))
    tokens = Tokens(regroup(channels, 1, own), own, (32, 32))
    sequence = to_sequence(tokens, bits, "consecutive")
    weights = 2 ** torch.arange(bits)
    assert torch.equal(sequence, (channels.unflatten(2, (-1, bits)) * weights).sum(3).flatten(1))
    layout = TokenLayout(num_tokens=5, bits_per_token=18, bits_per_group=own, image_size=(32, 32))
    config = GeneratorConfig(64, 2, 2, 10, bits_per_group=bits, bit_order="consecutive", tokens=layout)
    assert to_tokens(sequence, config) == tokens
    assert to_tokens(sequence, from_dict(GeneratorConfig, to_dict(config))) == tokens


def test_an_unknown_order_of_bits_is_refused() -> None:
    with pytest.raises(ConfigError, match="bit_order must be one of published, consecutive"):
        from_dict(GeneratorConfig, {**to_dict(GeneratorConfig(64, 2, 2, 10)), "bit_order": "random"})


def test_groups_that_do_not_divide_are_refused() -> None:
    with pytest.raises(ConfigError, match="18 is not a multiple of bits_per_group 7"):
        GeneratorConfig(64, 2, 2, 10, bits_per_group=7)
    with pytest.raises(ConfigError, match="18 is not a multiple of bits_per_group 4"):
        regroup(torch.zeros(1, 2, 2, dtype=torch.int64), 9, 4)
    with pytest.raises(ConfigError, match="between 0 and 511, got 0 to 512"):
        regroup(torch.tensor([[[0, 512]]]), 9, 6)


def test_another_tokenizer_is_refused() -> None:
    check_tokenizer(TokenLayout(fingerprint="0000002a"), 42)
    with pytest.raises(TokenFileError, match=r"0000002a.*0000002b.*noise"):
        check_tokenizer(TokenLayout(fingerprint="0000002a"), 43)


@pytest.mark.parametrize("value", [0, -1, 2**20 + 1, 2**63, 1e308, 10**400])
@pytest.mark.parametrize("name", ["num_tokens", "bits_per_token", "image_size"])
def test_a_files_word_on_its_tokens_has_bounds(name: str, value: int | float) -> None:
    with pytest.raises(ConfigError, match=f"^{name} must be .{{,250}}$"):
        from_dict(TokenLayout, {name: [64, value] if name == "image_size" else value})


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"num_tokens": 65}, "does not fit their tokenizer: damaged: 65 tokens"),
        ({"bits_per_token": 27}, "27 bits"),
        ({"image_size": (64, 2**16)}, "images of 64x65536 pixels, but the model has 32x32"),
    ],
)
def test_a_layout_that_its_tokenizer_cannot_decode_is_refused(changed: dict[str, Any], said: str) -> None:
    tokenizer = FlowMo(tiny())
    c = tokenizer.config
    layout = TokenLayout(f"{tokenizer.fingerprint():08x}", c.num_tokens, 18, 9, (c.image_size, c.image_size))
    check_layout(layout, tokenizer)
    check_layout(replace(layout, image_size=(64, 48)), tokenizer)  # as --size of tokenize makes them
    with pytest.raises(TokenFileError, match=said):
        check_layout(replace(layout, **changed), tokenizer)


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("1", 1),
        ("Labrador retriever", 1),
        ("labrador RETRIEVER", 1),
        ("n01443537", 0),
        ("Carassius auratus", 0),
        ("goldfish", 0),
        (CLASSES[0], 0),
        ("lifter", 3),
    ],
)
def test_a_class_by_number_id_or_name(text: str, number: int) -> None:
    assert find_class(text, CLASSES, 4) == number


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("4", "there is no class 4; the generator knows 0 to 3"),
        ("labrador", r"did you mean 1 'Labrador retriever'\?"),
        ("golfish", "did you mean 0 'goldfish'"),
        ("crane", "several classes are called 'crane': 2 'crane', 3 'crane'; give the number"),
        ("xylophone", "numbered 0 to 3, such as 0 'goldfish'"),
    ],
)
def test_what_is_said_of_an_unknown_class(text: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        find_class(text, CLASSES, 4)


def test_without_names_only_numbers_mean_a_class() -> None:
    assert find_class("3", [], 4) == 3
    with pytest.raises(ConfigError, match="no names of classes"):
        find_class("goldfish", [], 4)


def test_files_of_class_names(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("\n".join(CLASSES) + "\n\n")
    assert read_class_names(tmp_path / "a.txt") == CLASSES
    (tmp_path / "b.json").write_text(json.dumps(CLASSES))
    assert read_class_names(tmp_path / "b.json") == CLASSES
    (tmp_path / "c.json").write_text(json.dumps({"wnids": ["n01443537"], "names": ["goldfish"]}))
    assert read_class_names(tmp_path / "c.json") == ["n01443537 goldfish"]
    assert first_name("n01443537 goldfish, Carassius auratus") == "goldfish"
    assert first_name("n01443537") == "n01443537"
    for name, text in {
        "d.json": "{}",
        "e.json": "[1]",
        "f.json": '{"wnids": ["a"], "names": []}',
        "g.txt": "\n",
    }.items():
        (tmp_path / name).write_text(text)
        with pytest.raises(DataError, match=name):
            read_class_names(tmp_path / name)
    with pytest.raises(DataError, match="absent"):
        read_class_names(tmp_path / "absent.txt")


def test_a_mark_before_the_class_names_is_none_of_them_and_no_name_stands_twice(tmp_path: Path) -> None:
    for name, text in (("a.txt", "cat\ndog\n"), ("a.json", '["cat", "dog"]')):
        (tmp_path / name).write_text(text, encoding="utf-8-sig")
        assert read_class_names(tmp_path / name) == ["cat", "dog"]
        (tmp_path / name).write_text(text.replace("dog", "cat"))
        with pytest.raises(DataError, match="two classes are named 'cat'"):
            read_class_names(tmp_path / name)


def test_the_class_names_of_the_shared_data(shared: Path) -> None:
    classes = read_class_names(shared / "data" / "tiny64" / "classes.json")
    assert len(classes) == 100
    assert find_class("Labrador retriever", classes, 100) == find_class("n02099712", classes, 100) == 14
