"""Flags for the rate of a code: bits a token, bytes an image or bits a pixel, of models that code at any rate (O12)."""

from __future__ import annotations

import argparse
from collections.abc import Callable

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


def add_rates_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the same with several values each: the points of a rate curve."""
    group = parser.add_argument_group("rates", "of models that code at any rate, each measured; by default all bits")
    one = group.add_mutually_exclusive_group()
    for flag, kind, what in (
        ("--bits-per-token", positive, "keep the first N bits of each token"),
        ("--bytes", positive, "as many bits as N bytes an image hold, header apart"),
        ("--bits-per-pixel", finite, "as many bits as X times the pixels"),
    ):
        one.add_argument(flag, type=kind, nargs="+", metavar="X" if kind is finite else "N", help=what)


def rates_of(arguments: argparse.Namespace) -> Callable[[FlowMoConfig], list[int | None]]:
    """Return what gives, for a model's configuration, the bits a token of each rate that is asked for: rising, each
    once; None for all bits, which comes last. It raises ConfigError as :func:`bits_per_token`."""
    names = ("bits_per_token", "bytes", "bits_per_pixel")

    def rates(config: FlowMoConfig) -> list[int | None]:
        found: set[int | None] = set()
        for name in names:
            for value in getattr(arguments, name) or ():
                single = argparse.Namespace(**dict.fromkeys(names) | {name: value})
                found.add(bits_per_token(single, config, (config.image_size, config.image_size)))
        return sorted(found or {None}, key=lambda bits: bits or config.bits_per_token)

    return rates


def bits_per_token(arguments: argparse.Namespace, config: FlowMoConfig, size: tuple[int, int]) -> int | None:
    """Return :func:`codec.bits_per_token_at` with the rate that the arguments say. Raises ConfigError."""
    a = arguments
    return bits_per_token_at(config, size, a.bits_per_token, a.bytes, a.bits_per_pixel)
