"""Section 3.2: from latent to code, to integers, to bytes; one interface over the three quantizers."""

from __future__ import annotations

from torch import Tensor

from ..config import FlowMoConfig
from ..errors import ConfigError
from .base import Average, Quantized, QuantizerLosses
from .continuous import quantize_continuous
from .fsq import fsq_code_from_tokens, quantize_fsq
from .lfq import code_from_tokens, quantize_lfq, tokens_from_code

__all__ = ["Average", "Quantized", "QuantizerLosses", "dequantize", "quantize", "tokens_from_code"]


def quantize(latent: Tensor, config: FlowMoConfig, average: Average | None = None) -> Quantized:
    """latent B N K -> Quantized(code, tokens, losses) by the configured quantizer. average: see ``entropies``."""
    q = config.quantizer
    if q.kind == "lfq":
        return quantize_lfq(latent, config.bits_per_group, q.temperature, q.tanh_bound, average)
    if q.kind == "fsq":
        return quantize_fsq(latent, q.levels)
    return quantize_continuous(latent)


def dequantize(tokens: Tensor, config: FlowMoConfig) -> Tensor:
    """Integers B N G -> the code B N K that the decoder reads. Raises ConfigError for a continuous latent."""
    if config.quantizer.kind == "lfq":
        return code_from_tokens(tokens, config.bits_per_group)
    if config.quantizer.kind == "fsq":
        return fsq_code_from_tokens(tokens, config.quantizer.levels)
    raise ConfigError('a model with quantizer "continuous" has no tokens; use encode() and quantize().code')
