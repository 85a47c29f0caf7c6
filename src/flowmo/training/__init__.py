"""Training: ``train(plan, source, folder)``, its configurations, and the loop that every stage runs in."""

from ..stages import DistillConfig, NoiseLevelConfig, SampleDistanceConfig, SampleLossConfig
from .checkpoint import Checkpoint, read_newest, save_checkpoint
from .config import AutoencodeTrainConfig, DistillTrainConfig, PostTrainConfig, TrainConfig
from .distributed import World, spread
from .generator import GeneratorTrainConfig
from .logs import Log
from .loop import Run
from .plan import GeneratorPlan, Plan, TokenizerPlan
from .run_config import RunConfig
from .session import Outcome, TrainOptions, train
from .signals import Signals
from .start import assemble, averaged_model
from .state import TrainState
from .token_data import read_token_set

__all__ = [
    "AutoencodeTrainConfig",
    "Checkpoint",
    "DistillConfig",
    "DistillTrainConfig",
    "GeneratorPlan",
    "GeneratorTrainConfig",
    "Log",
    "NoiseLevelConfig",
    "Outcome",
    "Plan",
    "PostTrainConfig",
    "Run",
    "RunConfig",
    "SampleDistanceConfig",
    "SampleLossConfig",
    "Signals",
    "TokenizerPlan",
    "TrainConfig",
    "TrainOptions",
    "TrainState",
    "World",
    "assemble",
    "averaged_model",
    "read_newest",
    "read_token_set",
    "save_checkpoint",
    "spread",
    "train",
]
