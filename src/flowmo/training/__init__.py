"""Training: configuration, schedule, checkpoints and the loop that every stage runs in."""

from .checkpoint import TrainState, read_newest, stored_config
from .config import NoiseLevelConfig, TrainConfig
from .loop import Outcome, Run, mode_matching_step

__all__ = [
    "NoiseLevelConfig",
    "Outcome",
    "Run",
    "TrainConfig",
    "TrainState",
    "mode_matching_step",
    "read_newest",
    "stored_config",
]
