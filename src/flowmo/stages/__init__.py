"""Sections 3.2 and 3.3, and distillation: one file a training stage; each returns named loss terms."""

from .autoencode import AutoencodeLoss, autoencode_loss, reconstruct, regress
from .distillation import DistillationLoss, distillation_loss
from .mode_matching import LossWeights, ModeMatchingLoss, draw, mode_matching_loss
from .mode_seeking import ModeSeekingLoss, draw_chain, mode_seeking_loss, sample_chain

__all__ = [
    "AutoencodeLoss",
    "DistillationLoss",
    "LossWeights",
    "ModeMatchingLoss",
    "ModeSeekingLoss",
    "autoencode_loss",
    "distillation_loss",
    "draw",
    "draw_chain",
    "mode_matching_loss",
    "mode_seeking_loss",
    "reconstruct",
    "regress",
    "sample_chain",
]
