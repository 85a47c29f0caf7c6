"""Sections 3.2 and 3.3: one file a training stage; each returns named loss terms."""

from .autoencode import AutoencodeLoss, autoencode_loss, reconstruct, regress
from .mode_matching import LossWeights, ModeMatchingLoss, draw, mode_matching_loss

__all__ = [
    "AutoencodeLoss",
    "LossWeights",
    "ModeMatchingLoss",
    "autoencode_loss",
    "draw",
    "mode_matching_loss",
    "reconstruct",
    "regress",
]
