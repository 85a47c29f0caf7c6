"""A continuous latent with LayerNorm, for the comparison with DiTo (Section 4.1, Table 3; F6)."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from ..config import FlowMoConfig
from ..errors import ConfigError
from .base import Average, Quantized, Quantizer, no_losses


class Continuous(Quantizer):
    """A latent that is only normalised; it has no tokens and no weights."""

    has_tokens = False

    def __init__(self, config: FlowMoConfig) -> None:
        super().__init__()

    def forward(self, latent: Tensor, average: Average | None = None) -> Quantized:
        return quantize_continuous(latent)

    def decode(self, tokens: Tensor) -> Tensor:
        raise ConfigError('a model with quantizer "continuous" has no tokens; use encode() and quantize().code')


def quantize_continuous(latent: Tensor) -> Quantized:
    """latent: B N K -> each token normalised without weights ("LayerNorm as the final encoder layer"); no tokens."""
    latent = latent.float()
    return Quantized(F.layer_norm(latent, latent.shape[-1:], eps=1e-6), None, no_losses(latent))
