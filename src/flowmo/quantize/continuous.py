"""A continuous latent with LayerNorm, for the comparison with DiTo (Section 4.1, Table 3; F6)."""

from __future__ import annotations

from typing import Literal

import torch.nn.functional as F
from torch import Tensor

from ..config import FlowMoConfig
from ..errors import ConfigError
from .base import Average, Quantized, Quantizer, no_losses

NO_TOKENS = (
    'a model with quantizer "continuous" has no tokens, hence no token files and no bytes; reconstruct, evaluate, '
    "train, posttrain and distill work without, and codes() and decode_codes() in Python"
)


class Continuous(Quantizer):
    """A latent that is only normalised; it has no tokens and no weights."""

    has_tokens = False

    def __init__(self, config: FlowMoConfig) -> None:
        super().__init__()
        self.normalize = config.quantizer.normalize
        self.latent_dim, self.levels = config.bits_per_token, ()

    def forward(self, latent: Tensor, average: Average | None = None) -> Quantized:
        return quantize_continuous(latent, self.normalize)

    def decode(self, tokens: Tensor) -> Tensor:
        raise ConfigError(NO_TOKENS)


def quantize_continuous(latent: Tensor, over: Literal["token", "latent"] = "token") -> Quantized:
    """Return the latent B N K normalised without weights, and no tokens ("LayerNorm as the final encoder layer").

    over: mean and variance are of each token, or of the whole latent of an image as in DiTo (F6).
    """
    latent = latent.float()
    shape = latent.shape[-1:] if over == "token" else latent.shape[1:]
    return Quantized(F.layer_norm(latent, shape, eps=1e-6), None, no_losses(latent))
