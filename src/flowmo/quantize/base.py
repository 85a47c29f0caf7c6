"""What every quantizer returns (Section 3.2)."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from torch import Tensor

Average = Callable[[Tensor], Tensor]
"""Mean of a tensor without gradient over all processes of a training, the same in each."""


class QuantizerLosses(NamedTuple):
    """Scalars of Eq. 7 and 8, not yet weighted; zero where a quantizer has no such term."""

    sample_entropy: Tensor
    codebook_entropy: Tensor
    commitment: Tensor

    @property
    def entropy(self) -> Tensor:
        """L_ent of Eq. 7."""
        return self.sample_entropy - self.codebook_entropy


class Quantized(NamedTuple):
    """code: B N K, what the decoder reads, with a gradient to the latent. tokens: B N G int64, or None where the
    code is continuous. losses: see :class:`QuantizerLosses`."""

    code: Tensor
    tokens: Tensor | None
    losses: QuantizerLosses


def no_losses(latent: Tensor) -> QuantizerLosses:
    zero = latent.new_zeros(())
    return QuantizerLosses(zero, zero, zero)
