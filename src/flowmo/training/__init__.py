"""Training: ``train(plan, source, folder)``, its configurations, and the loop that every stage runs in."""

from ..stages import DistillConfig, NoiseLevelConfig, SampleDistanceConfig, SampleLossConfig
from .checkpoints.checkpoint import Checkpoint, read_newest, save_checkpoint
from .configuration.config import AutoencodeTrainConfig, DistillTrainConfig, PostTrainConfig, TrainConfig
from .configuration.run_config import RunConfig
from .data.token_data import read_token_set
from .generator import GeneratorTrainConfig
from .loop import Run
from .monitoring.logs import Log
from .optimization.state import TrainState
from .plan import GeneratorPlan, Plan, TokenizerPlan
from .processes.distributed import World, spread
from .processes.signals import Signals
from .session import Outcome, TrainOptions, train
from .start import assemble, averaged_model

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
