"""Section 3.2: from latent to code, to integers, to bytes; one module a quantizer."""

from __future__ import annotations

from ..config import FlowMoConfig
from .base import Average, Quantized, Quantizer, QuantizerLosses
from .bsq import BSQ
from .continuous import Continuous
from .fsq import FSQ
from .lfq import LFQ, tokens_from_code

__all__ = ["Average", "Quantized", "Quantizer", "QuantizerLosses", "make_quantizer", "tokens_from_code"]

KINDS: dict[str, type[Quantizer]] = {"lfq": LFQ, "fsq": FSQ, "bsq": BSQ, "continuous": Continuous}


def make_quantizer(config: FlowMoConfig) -> Quantizer:
    """Return the quantizer that a configuration names."""
    return KINDS[config.quantizer.kind](config)
