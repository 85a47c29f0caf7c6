"""A continuous latent with LayerNorm, for the comparison with DiTo (Section 4.1, Table 3; F6)."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from .base import Quantized, no_losses


def quantize_continuous(latent: Tensor) -> Quantized:
    """latent: B N K -> each token normalised without weights ("LayerNorm as the final encoder layer"); no tokens."""
    latent = latent.float()
    return Quantized(F.layer_norm(latent, latent.shape[-1:], eps=1e-6), None, no_losses(latent))
