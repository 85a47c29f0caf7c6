"""Flags for other people's tokenizers, from the files that their authors publish (Table 1)."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

from ...errors import ConfigError
from .fields import add_flag
from .values import positive

PEER_SIZE = 256
"""Pixels a side, of Table 1."""


def add_peer_arguments(parser: argparse.ArgumentParser, flag: str, what: str, **settings: Any) -> None:
    """Add ``flag`` for NAME=FILE and ``--peer-size``. settings: of the first."""
    group = parser.add_argument_group("other tokenizers", "'flowmo compare --peers list' shows names and files")
    group.add_argument(flag, metavar="NAME=FILE", help=f"{what}, from files as their authors publish them", **settings)
    add_flag(group, "--peer-size", positive, "height and width of their images in pixels", PEER_SIZE)


def add_decoding_peer(parser: Any, **settings: Any) -> None:
    """Add ``--peer`` to a command that decodes tokens, which say themselves of what image size they are."""
    shown = "decode with another tokenizer, whose tokens these are; 'flowmo compare --peers list' shows names and files"
    parser.add_argument("--peer", metavar="NAME=FILE", help=shown, **settings)


def refuse_our_settings(arguments: argparse.Namespace, flag: str, names: Sequence[str]) -> None:
    """Raise ConfigError for settings of our own models beside the ``flag`` of another tokenizer."""
    given = [name for name in names if getattr(arguments, name) not in (None, False, "fp32")]
    if given:
        shown = ", ".join(f"--{name.replace('_', '-')}" for name in given)
        raise ConfigError(f"{flag}: settings of FlowMo models do not apply to another tokenizer; leave out {shown}")
