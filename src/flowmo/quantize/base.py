"""What every quantizer is and returns (Section 3.2).

A quantizer is a module in a file of its own. Adding one touches that file, ``__init__.py``, ``config.py`` and its test.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import ClassVar, NamedTuple

import torch.nn.functional as F
from torch import Tensor, nn

Average = Callable[[Tensor], Tensor]
"""Mean of a tensor without gradient over all processes of a training, the same in each."""


class QuantizerLosses(NamedTuple):
    """The scalars of Eq. 7 and 8, not yet weighted; each is zero where a quantizer has no such term."""

    sample_entropy: Tensor  # mean entropy of a sample's code, in nats
    codebook_entropy: Tensor  # entropy of the mean code, in nats
    commitment: Tensor  # L_commit of Eq. 8

    @property
    def entropy(self) -> Tensor:
        """Return L_ent of Eq. 7."""
        return self.sample_entropy - self.codebook_entropy


class Quantized(NamedTuple):
    """What a quantizer makes of a latent."""

    code: Tensor  # B N K, what the decoder is given, with a gradient to the latent
    tokens: Tensor | None  # B N G int64, or None where the code is continuous
    losses: QuantizerLosses  # the terms of Eq. 7 and 8


class Quantizer(nn.Module, ABC):
    """Base of the quantizers: from latents to codes and integers, and back from integers."""

    has_tokens: ClassVar[bool] = True
    """Whether a code is integers too."""
    has_bits: ClassVar[bool] = False
    """Whether every channel of a code is a sign."""
    latent_dim: int
    """K, the channels of latent and code, which ``FlowMoConfig.latent_dim`` tells before there is a quantizer."""
    levels: tuple[int, ...]
    """How many values each channel of one group takes; empty where the code is continuous."""

    @abstractmethod
    def forward(self, latent: Tensor, average: Average | None = None) -> Quantized:
        """Return code, tokens and losses of a latent B N K. average: see ``entropies``."""

    @abstractmethod
    def decode(self, tokens: Tensor) -> Tensor:
        """Return the code B N K, float32, of integers B N G. Raises ConfigError for integers that no latent gives."""


def straight_through(latent: Tensor, code: Tensor, rotate: bool = False) -> Tensor:
    """Return the code B N K with a gradient to the latent B N K.

    By default the gradient passes unchanged.
    rotate: the gradient of each token is turned and scaled as the token was on its way to its code. This is the
    rotation trick of Fifty et al. (2024): q = |q| / |e| R e, with R and the factor as constants.
    """
    if not rotate:
        return latent + (code - latent).detach()
    e, q = latent.detach(), code.detach()
    unit_e, unit_q = F.normalize(e, dim=-1), F.normalize(q, dim=-1)
    between = F.normalize(unit_e + unit_q, dim=-1)
    ratio = q.norm(dim=-1, keepdim=True) / e.norm(dim=-1, keepdim=True).clamp_min(1e-6)

    def along(direction: Tensor) -> Tensor:
        return (latent * direction).sum(-1, keepdim=True)

    turned = ratio * (latent - 2 * along(between) * between + 2 * along(unit_e) * unit_q)
    return turned + (q - turned).detach()


def no_losses(latent: Tensor) -> QuantizerLosses:
    """Return zeros for a quantizer without terms of its own."""
    zero = latent.new_zeros(())
    return QuantizerLosses(zero, zero, zero)
