"""Sections 3.2 and 3.3, and distillation: one file a training stage, with its configuration, its loss and its step."""

from .autoencode import Autoencode, AutoencodeConfig, AutoencodeLoss, autoencode_loss, reconstruct, regress
from .base import LossParts, LossTerms, PerceptualDistance, QuantizerWeights, Stage, StageConfig
from .curriculum import NoiseLevelConfig
from .distillation import Distillation, DistillationConfig, DistillationLoss, DistillConfig, distillation_loss
from .mode_matching import LossWeights, ModeMatching, ModeMatchingConfig, ModeMatchingLoss, draw, mode_matching_loss
from .mode_seeking import (
    ModeSeeking,
    ModeSeekingConfig,
    ModeSeekingLoss,
    SampleDistanceConfig,
    SampleLossConfig,
    draw_chain,
    mode_seeking_loss,
    sample_chain,
)

__all__ = [
    "Autoencode",
    "AutoencodeConfig",
    "AutoencodeLoss",
    "DistillConfig",
    "Distillation",
    "DistillationConfig",
    "DistillationLoss",
    "LossParts",
    "LossTerms",
    "LossWeights",
    "ModeMatching",
    "ModeMatchingConfig",
    "ModeMatchingLoss",
    "ModeSeeking",
    "ModeSeekingConfig",
    "ModeSeekingLoss",
    "NoiseLevelConfig",
    "PerceptualDistance",
    "QuantizerWeights",
    "SampleDistanceConfig",
    "SampleLossConfig",
    "Stage",
    "StageConfig",
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
