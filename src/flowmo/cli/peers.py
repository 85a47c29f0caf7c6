"""Flags for other people's tokenizers, from the files that their authors publish (Table 1)."""

from __future__ import annotations

import argparse
from typing import Any

from .fields import add_flag
from .values import positive

PEER_SIZE = 256
"""Pixels a side, of Table 1."""


def add_peer_arguments(parser: argparse.ArgumentParser, flag: str, what: str, **settings: Any) -> None:
    """Add ``flag`` for NAME=FILE and ``--peer-size``. settings: of the first."""
    group = parser.add_argument_group("other tokenizers", "'flowmo compare --peers list' shows names and files")
    group.add_argument(flag, metavar="NAME=FILE", help=f"{what}, from files as their authors publish them", **settings)
    add_flag(group, "--peer-size", positive, "height and width of their images in pixels", PEER_SIZE)
