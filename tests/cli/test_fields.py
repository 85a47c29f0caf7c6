"""Flags that come from the fields of a dataclass."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from typing import Literal

import pytest

from flowmo.cli.arguments.fields import add_fields, fields_of


@dataclass(frozen=True)
class Settings:
    num_steps: int = 8
    scale: float = 1.5
    kind: Literal["one", "two"] = "one"
    hidden: int = 3


FLAGS = {"num_steps": ("--steps", "steps"), "scale": ("--scale", "scale"), "kind": ("--kind", "kind")}


@pytest.fixture
def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser()
    add_fields(parser, Settings(), FLAGS)
    return parser


def test_without_flags_the_dataclass_is_its_default(parser: argparse.ArgumentParser) -> None:
    assert Settings(**fields_of(parser.parse_args([]), Settings)) == Settings()


def test_flags_change_their_fields(parser: argparse.ArgumentParser) -> None:
    given = fields_of(parser.parse_args(["--steps", "2", "--scale", "3", "--kind", "two"]), Settings)
    assert given == {"num_steps": 2, "scale": 3.0, "kind": "two"}


@pytest.mark.parametrize("words", [["--steps", "0"], ["--steps", "99999"], ["--scale", "nan"], ["--kind", "three"]])
def test_values_out_of_range_are_refused(parser: argparse.ArgumentParser, words: list[str]) -> None:
    with pytest.raises(SystemExit):
        parser.parse_args(words)


def test_help_names_the_default_and_what_there_is(parser: argparse.ArgumentParser) -> None:
    text = parser.format_help()
    assert "--scale X" in text
    assert "(default: 1.5)" in text
    assert "{one,two}" in text
