"""Flags for other people's tokenizers, from the files that their authors publish (Table 1)."""

from __future__ import annotations

import argparse
from typing import Any

from .common import positive

PEER_SIZE = 256
"""Pixels a side, of Table 1."""


def add_peer_arguments(parser: argparse.ArgumentParser, flag: str, what: str, **settings: Any) -> None:
    """Add ``flag`` for NAME=FILE and ``--peer-size``. settings: of the first."""
    group = parser.add_argument_group("other tokenizers", "'flowmo compare --peers list' shows names and files")
    group.add_argument(flag, metavar="NAME=FILE", help=f"{what}, from files as their authors publish them", **settings)
    group.add_argument(
        "--peer-size",
        type=positive,
        default=PEER_SIZE,
        metavar="N",
        help="height and width of their images in pixels (default: %(default)s)",
    )
