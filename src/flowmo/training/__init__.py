"""Training: configuration, schedule, checkpoints and the loop that every stage runs in."""

from .checkpoint import Checkpoint, read_newest, save_checkpoint
from .config import DistillConfig, NoiseLevelConfig, SampleLossConfig, TrainConfig
from .distributed import World, spread
from .logs import Log
from .loop import Outcome, Run
from .run_config import RunConfig
from .start import assemble
from .state import TrainState
from .steps import TokenizerStep, TrainStep

__all__ = [
    "Checkpoint",
    "DistillConfig",
    "Log",
    "NoiseLevelConfig",
    "Outcome",
    "Run",
    "RunConfig",
    "SampleLossConfig",
    "TokenizerStep",
    "TrainConfig",
    "TrainState",
    "TrainStep",
    "World",
    "assemble",
    "read_newest",
    "save_checkpoint",
    "spread",
]
