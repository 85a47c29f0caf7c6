"""Flags for the rate of a code: bits a token, bytes an image or bits a pixel, of models that code at any rate (O12)."""

from __future__ import annotations

import argparse

from ..config import FlowMoConfig
from ..errors import ConfigError
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


def rates_of(arguments: argparse.Namespace, config: FlowMoConfig) -> list[int | None]:
    """Return the bits a token of each rate that is asked for, rising, each once; None for all bits, which comes last.

    Raises ConfigError as :func:`bits_per_token`.
    """
    names = ("bits_per_token", "bytes", "bits_per_pixel")
    found: set[int | None] = set()
    for name in names:
        for value in getattr(arguments, name) or ():
            single = argparse.Namespace(**dict.fromkeys(names) | {name: value})
            found.add(bits_per_token(single, config, (config.image_size, config.image_size)))
    return sorted(found or {None}, key=lambda bits: bits or config.bits_per_token)


def bits_per_token(arguments: argparse.Namespace, config: FlowMoConfig, size: tuple[int, int]) -> int | None:
    """Return how many bits of each token of an image of (height, width) are kept; None for all of them.

    Raises ConfigError where the model has one rate alone, or where the rate is below one bit a token.
    """
    asked, tokens = arguments.bits_per_token, config.tokens_of(size)
    if arguments.bytes is not None:
        asked = arguments.bytes * 8 // tokens
    elif arguments.bits_per_pixel is not None:
        asked = int(arguments.bits_per_pixel * size[0] * size[1] / tokens + 1e-9)
    if asked is None or asked == config.bits_per_token:
        return None
    if config.transform is None:
        raise ConfigError(
            f"the model codes at one rate alone, {config.bits_per_token} bits a token; leave out the rate, or use a "
            "model with a transform, such as those of the preset flowmo-mini"
        )
    if arguments.bits_per_token is None:
        asked = min(asked, config.bits_per_token)
    whole = asked - asked % config.bits_per_group
    if whole < 1:
        raise ConfigError(
            f"{size[0]}x{size[1]} pixels are {tokens} tokens, which need at least {config.bits_per_group} bits each: "
            f"{-(-tokens * config.bits_per_group // 8)} bytes"
        )
    if asked > config.bits_per_token:
        raise ConfigError(f"--bits-per-token {asked}: the model has {config.bits_per_token} bits a token")
    return None if whole == config.bits_per_token else whole
