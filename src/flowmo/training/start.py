"""A run put together, new or from a checkpoint: the stage, spread over the processes, and its state."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import NamedTuple, TypeVar

from torch import nn

from ..config import FlowMoConfig, from_dict, to_dict
from ..errors import ConfigError, TrainingError
from ..stages.mode_matching import PerceptualDistance
from ..tokenizer import FlowMo
from .checkpoint import Checkpoint, read_newest
from .config import TrainConfig
from .distributed import World, spread
from .health import Meter
from .run_config import RunConfig
from .state import TrainState
from .steps import LossParts, TokenizerStep

AnyConfig = TypeVar("AnyConfig", bound=RunConfig)
MAY_CHANGE = frozenset(
    {"images", "cooldown_images", "strategy", "recompute_blocks", "compile", "workers", "most_skipped"}
    | {"log_steps", "check_images", "checkpoint_minutes", "keep"}
)
"""Settings that a run may be continued with other values of: they change its length or how it runs, not what it is."""


class Assembled(NamedTuple):
    step: TokenizerStep
    ready: nn.Module
    state: TrainState
    meter: Meter


def assemble(
    model: FlowMo,
    config: TrainConfig,
    world: World,
    perceptual: PerceptualDistance | None = None,
    checkpoint: Checkpoint | None = None,
    teacher: FlowMo | None = None,
) -> Assembled:
    """A run of a tokenizer's stage, where ``checkpoint`` left it or at the beginning. teacher: of distillation.

    The encoder is frozen once ``config.freeze_encoder_after`` images are seen; the optimizer is then built anew with
    the decoder alone, so its moments start again (A14). Raises TrainingError for a checkpoint of another model.
    """
    step = TokenizerStep(model.to(world.device), config, LossParts(perceptual, world.average, teacher))
    if checkpoint is not None and checkpoint.about["model_config"] != to_dict(model.config):
        raise TrainingError(f"{checkpoint.path} is of another model")
    seen = checkpoint.about["images_seen"] if checkpoint else 0
    frozen = config.freeze_encoder_after is not None and seen >= config.freeze_encoder_after
    if frozen:
        step.freeze_encoder()
    ready = spread(step, world, config.strategy, config.recompute_blocks, config.compile)
    state, meter = TrainState.start(step.model, config, step.learning_rate_scales()), Meter()
    if checkpoint is not None:
        checkpoint.restore(state, world, moments=checkpoint.about["encoder_frozen"] == frozen)
        meter.sums |= checkpoint.meter(world.device)
    return Assembled(step, ready, state, meter)


def crop_size(model: FlowMoConfig, config: TrainConfig) -> int:
    """Side of the pictures that the run trains on. Raises ConfigError for one that the model cannot take."""
    size = config.crop_size or model.image_size
    for side in (model.encoder, model.decoder):
        if size % side.patch_size or size > model.image_size:
            raise ConfigError(
                f"crop_size {size} must be a multiple of the patch size {side.patch_size} and at most the model's "
                f"image_size {model.image_size}"
            )
    return size


def raw_model(folder: Path) -> FlowMo:
    """The model with the raw weights of the newest checkpoint in a run's folder, not their average (D4). Raises
    TrainingError where there is none that is whole."""
    checkpoint = read_newest(folder)
    if checkpoint is None:
        raise TrainingError(f"{folder} holds no checkpoints, hence no raw weights")
    model = FlowMo(stored_model_config(checkpoint))
    state = TrainState.start(model, replace(checkpoint.train_config, weight_normalization=False))
    checkpoint.restore(state, World(), moments=False)
    return model.eval()


def stored_model_config(checkpoint: Checkpoint) -> FlowMoConfig:
    """Raises ConfigError for one that this version does not know."""
    return from_dict(FlowMoConfig, checkpoint.about["model_config"])


def check_same(checkpoint: Checkpoint, asked: RunConfig) -> None:
    """Raises TrainingError for settings that would make another run of the one in the checkpoint."""
    a, b = to_dict(checkpoint.train_config), to_dict(asked)
    changed = [name for name in a if a[name] != b[name] and name not in MAY_CHANGE]
    if changed:
        raise TrainingError(
            f"{checkpoint.path.parent} holds a run with other settings "
            f"({', '.join(f'{n}: {a[n]} there' for n in changed)}); give another folder, or the same settings. "
            f"Only {', '.join(sorted(MAY_CHANGE))} may change"
        )


def cooled_down(config: AnyConfig, checkpoint: Checkpoint, images: int) -> AnyConfig:
    """The run's settings with a cool-down over its next ``images``; or over those that are left of it, where the
    checkpoint is already of that cool-down."""
    if checkpoint.about.get("cooldown") == images:
        return replace(config, images=checkpoint.train_config.images, cooldown_images=images)
    return replace(config, images=checkpoint.about["images_seen"] + images, cooldown_images=images)
