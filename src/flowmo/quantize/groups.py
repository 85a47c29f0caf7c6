"""Tokens as integers of another number of bits than their tokenizer writes them with (Appendix A.3; A8).

In the published order bit b of integer g of a token is its channel b * G + g, least significant bit first.
So in integers of another size the same channels stand in other places.
In the consecutive order it is channel g * bits_per_group + b: where channels stand in order of their weight, as
those of a transform code do, the first integer is the coarsest part of the token.
"""

from __future__ import annotations

from torch import Tensor

from ..errors import ConfigError
from .tokens import BitOrder, bits_from_integers, integers_from_bits

MOST_JOINED = 10
"""Single bits that become one integer where nothing else is asked for: a vocabulary of 1,024."""


def check_split(bits_per_token: int, bits_per_group: int) -> None:
    """Raise ConfigError unless groups of so many bits make up a token."""
    if bits_per_token % bits_per_group:
        raise ConfigError(f"bits_per_token {bits_per_token} is not a multiple of bits_per_group {bits_per_group}")


def joined_bits(bits_per_token: int) -> int:
    """Return how many single bits become one integer: the largest share of a token of at most ``MOST_JOINED``."""
    return max(bits for bits in range(1, MOST_JOINED + 1) if bits_per_token % bits == 0)


def grouping(bits_per_token: int, bits_per_group: int) -> tuple[int, BitOrder]:
    """Return the bits of one integer, and which they are, by which a sequence model reads such tokens by default.

    Tokens of single bits, as a model of any rate has them, become integers of several bits that follow one another: a
    sequence of bits would be very long, and bits in order of their weight belong together.
    """
    return (joined_bits(bits_per_token), "consecutive") if bits_per_group == 1 else (bits_per_group, "published")


def regroup(
    indices: Tensor,
    bits_per_group: int,
    wanted: int,
    order: BitOrder = "published",
    wanted_order: BitOrder = "published",
) -> Tensor:
    """Return tokens as integers B N G' of ``wanted`` bits; they come as B N G of ``bits_per_group`` bits.

    order, wanted_order: which bits an integer holds before and after.
    Raises ConfigError where the bits of a token are no multiple of ``wanted``, or an integer is out of range.
    """
    if (wanted, wanted_order) == (bits_per_group, order):
        return indices
    check_split(indices.shape[2] * bits_per_group, wanted)
    bits = bits_from_integers(indices, bits_per_group)
    channels = (bits if order == "consecutive" else bits.transpose(-1, -2)).flatten(2)  # B N K
    if wanted_order == "consecutive":
        return integers_from_bits(channels.unflatten(2, (-1, wanted)))
    return integers_from_bits(channels.unflatten(2, (wanted, -1)).transpose(-1, -2))
