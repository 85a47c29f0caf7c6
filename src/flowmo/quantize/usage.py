"""How much of the code is used (Section 3.2, the aim of Eq. 7; A6-A8): entropies of bits and of codes, over images.

Entropies are those of the sample, hence too low for few images: S integers cannot show more than log2 S bits.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import ConfigError
from .tokens import Tokens


@dataclass(frozen=True)
class BitUsage:
    """How much the bits of an image's code are used."""

    entropy: float  # of a bit, in [0, 1], the mean over all bits of an image's code
    never_flip: float  # the share of those bits that are the same in all images


@dataclass(frozen=True)
class CodeUsage:
    """How much the code is used over all tokens of some images. Each tuple has one entry a group."""

    images: int  # how many
    bits: BitUsage  # the use of single bits
    entropy: tuple[float, ...]  # of the group's integer, in bits, at most ``bits_per_group``
    perplexity: tuple[float, ...]  # 2 to that, the number of codes that would do as well
    used: tuple[float, ...]  # the share of the 2^bits_per_group codes that occur at all


def code_usage(tokens: Tokens) -> CodeUsage:
    """Return how much the code is used over the images of ``tokens``. Raises ConfigError where there are none."""
    if not len(tokens):
        raise ConfigError("the use of the code needs the tokens of at least one image")
    indices, bits = tokens.indices.cpu(), tokens.bits_per_group
    counts = [indices[:, :, group].unique(return_counts=True)[1] for group in range(tokens.num_groups)]
    entropy = [float(_entropy(count / count.sum()).sum()) for count in (count.double() for count in counts)]
    share = torch.stack([(indices >> bit & 1).double().mean(0) for bit in range(bits)])  # bits N G
    return CodeUsage(
        images=len(tokens),
        bits=bit_usage(share),
        entropy=tuple(entropy),
        perplexity=tuple(2.0**bits_of for bits_of in entropy),
        used=tuple(len(count) / 2**bits for count in counts),
    )


def bit_usage(share: Tensor) -> BitUsage:
    """Return how much the bits are used, by the share of the images in which each bit of the code is set.

    share: any shape, within rounding of [0, 1].
    """
    p = share.cpu().double().clamp(0, 1)
    constant = (p < 1e-6) | (p > 1 - 1e-6)
    return BitUsage(float((_entropy(p) + _entropy(1 - p)).mean()), float(constant.double().mean()))


def _entropy(p: Tensor) -> Tensor:
    """Return -p log2 p, 0 where p is."""
    return torch.special.entr(p) / math.log(2)
