"""docs/FORMAT.md is true: its code runs and agrees with the package, its table with the header."""

from __future__ import annotations

import ast
import re
import struct
from pathlib import Path
from typing import Any

import pytest
import torch

from flowmo.codec import FITS, HEADER_SIZE, Shard, TokenFile, encode_file, write_file, write_shard
from flowmo.quantize.tokens import Tokens

TEXT = (Path(__file__).parents[2] / "docs" / "FORMAT.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)


def example(function: str) -> Any:
    source = next(code for code in EXAMPLES if f"def {function}(" in code)
    names: dict[str, Any] = {}
    exec(compile(source, "docs/FORMAT.md", "exec"), names)
    return names[function]


def test_the_plain_reader_needs_the_standard_library_alone():
    source = next(code for code in EXAMPLES if "def read_flowmo(" in code)
    nodes = list(ast.walk(ast.parse(source)))
    assert not any(isinstance(node, ast.ImportFrom) for node in nodes)
    assert {name.name for node in nodes if isinstance(node, ast.Import) for name in node.names} == {"struct", "zlib"}


LAYOUTS = [("crop", 256, 2, 9), ("pad", 256, 4, 14), ("stretch", 7, 1, 5), ("whole", 192, 56, 1)]


@pytest.mark.parametrize(("fit", "n", "g", "bits"), LAYOUTS)
def test_the_plain_reader_reads_what_the_package_writes(tmp_path, fit, n, g, bits):
    tokens = Tokens(torch.randint(2**bits, (1, n, g)), bits, (256, 192))
    write_file(tmp_path / "a.flowmo", TokenFile(tokens, 0xFEDCBA98, fit, (1000, 750)))
    assert {layout[0] for layout in LAYOUTS} == set(FITS)
    assert example("read_flowmo")(tmp_path / "a.flowmo") == {
        "tokens": tokens.indices[0].tolist(),
        "fingerprint": 0xFEDCBA98,
        "fit": fit,
        "image_size": (256, 192),
        "original_size": (1000, 750),
    }


def test_the_plain_reader_sees_damage(tmp_path):
    tokens = Tokens(torch.zeros(1, 4, 2, dtype=torch.int64), 9, (8, 8))
    data = bytearray(encode_file(TokenFile(tokens, 1, "crop", (8, 8))))
    data[-1] ^= 1
    (tmp_path / "a.flowmo").write_bytes(data)
    with pytest.raises(AssertionError, match="damaged"):
        example("read_flowmo")(tmp_path / "a.flowmo")


def test_the_shard_example_runs(tmp_path):
    tokens = Tokens(torch.randint(512, (4, 16, 2)), 9, (64, 64))
    write_shard(tmp_path / "s", Shard(tokens, list("abcd"), torch.tensor([7, 3, 7, 7]), 1, "crop", None))
    assert example("count_by_label")(tmp_path / "s") == {3: 1, 7: 3}


def test_every_example_is_run_here():
    assert len(EXAMPLES) == 2


def test_header_table_adds_up():
    rows = re.findall(r"^\| (\d+) \| (3 bytes|uint\d+|) \|", TEXT, re.MULTILINE)
    sizes = {"3 bytes": 3, "uint8": 1, "uint16": 2, "uint32": 4, "": 0}
    offset = 0
    for start, kind in rows:
        assert int(start) == offset
        offset += sizes[kind]
    assert offset == HEADER_SIZE == struct.calcsize("<3sBIHHHHHBBI")
    assert "0 crop, 1 pad, 2 stretch, 3 whole" in TEXT
    assert FITS == ("crop", "pad", "stretch", "whole")


def test_the_worked_example_is_right():
    assert Tokens(torch.tensor([[[1, 6], [4, 3]]]), 3, (8, 8)).to_bytes() == [b"\x31\x07"]
