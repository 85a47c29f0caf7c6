"""Flags for the rate of a code: bits a token, bytes an image or bits a pixel, of models that code at any rate (O12)."""

from __future__ import annotations

import argparse

from ..codec import bits_per_token_at
from ..config import FlowMoConfig
from .common import finite, positive


def add_rate_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the three ways to say a rate, of which one may be given."""
    group = parser.add_argument_group("rate", "of a model that codes at any rate; by default all of its bits")
    one = group.add_mutually_exclusive_group()
    one.add_argument("--bits-per-token", type=positive, metavar="N", help="keep the first N bits of each token")
    one.add_argument("--bytes", type=positive, metavar="N", help="as many bits as N bytes an image hold, header apart")
    one.add_argument("--bits-per-pixel", type=finite, metavar="X", help="as many bits as X times the pixels")


def bits_per_token(arguments: argparse.Namespace, config: FlowMoConfig, size: tuple[int, int]) -> int | None:
    """:func:`codec.bits_per_token_at` with the rate that the arguments say. Raises ConfigError."""
    a = arguments
    return bits_per_token_at(config, size, a.bits_per_token, a.bytes, a.bits_per_pixel)
