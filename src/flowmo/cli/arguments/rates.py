"""Flags for the rate of a code: bits a token, bytes an image or bits a pixel, of models that code at any rate (O12)."""

from __future__ import annotations

import argparse

from ...codec import bits_per_token_at
from ...config import FlowMoConfig
from .fields import add_flag
from .values import finite, positive


def add_rate_arguments(parser: argparse.ArgumentParser, several: bool = False) -> None:
    """Add the three ways to say a rate, of which one may be given. several: values of it, the points of a curve."""
    if several:
        group = parser.add_argument_group(
            "rates", "of models that code at any rate, each measured; by default all bits"
        )
    else:
        group = parser.add_argument_group("rate", "of a model that codes at any rate; by default all of its bits")
    one, nargs = group.add_mutually_exclusive_group(), "+" if several else None
    add_flag(one, "--bits-per-token", positive, "keep the first N bits of each token", nargs=nargs)
    add_flag(one, "--bytes", positive, "as many bits as N bytes an image hold, header apart", nargs=nargs)
    add_flag(one, "--bits-per-pixel", finite, "as many bits as X times the pixels", nargs=nargs)


def bits_per_token(arguments: argparse.Namespace, config: FlowMoConfig, size: tuple[int, int]) -> int | None:
    """Return :func:`codec.bits_per_token_at` with the rate that the arguments say. Raises ConfigError."""
    a = arguments
    return bits_per_token_at(config, size, a.bits_per_token, a.bytes, a.bits_per_pixel)
