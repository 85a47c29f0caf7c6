"""A run put together, new or from a checkpoint: the stage, spread over the processes, and its state."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Generic, NamedTuple, TypeVar

from torch import nn

from ..arch.mup import learning_rate_scales
from ..config import FlowMoConfig, from_dict, to_dict
from ..errors import ConfigError, TrainingError, WeightsError
from ..presets import preset
from ..stages import LossParts, PerceptualDistance, Stage
from ..tokenizer import FlowMo
from ..weights import read_about as read_weights_about
from ..weights import save_model, weights_path
from ..weights.load import checkpoint_folder
from .checkpoints.checkpoint import ABOUT, Checkpoint, checkpoints, read_checkpoint, read_newest
from .configuration.config import STAGES, ImageRunConfig
from .configuration.run_config import RunConfig
from .monitoring.health import Meter
from .optimization.state import TrainState
from .processes.distributed import World, block_matrices, spread
from .trained import ModelKind

AnyConfig = TypeVar("AnyConfig", bound=RunConfig)
AnyStage = TypeVar("AnyStage", bound=Stage)
MAY_CHANGE = frozenset(
    {"images", "cooldown_images", "strategy", "recompute_blocks", "compile", "tf32", "workers", "most_skipped"}
    | {"log_steps", "validate_every", "checkpoint_minutes", "keep"}
)
"""Settings that a run may be continued with other values of: they change its length or how it runs, not what it is.

``tf32`` is one, unlike ``precision``: it rounds differently on some GPUs only, as another GPU or ``compile`` does, and
runs that began before there was such a setting go on by the same recipe.
"""


class Assembled(NamedTuple, Generic[AnyStage]):
    """What one process trains."""

    stage: AnyStage  # holds the model
    ready: nn.Module  # the same, spread over the processes
    state: TrainState  # weights, EMA, moments, counters
    meter: Meter  # means for the next line of the log


def assemble(
    model: FlowMo,
    config: ImageRunConfig,
    world: World,
    perceptual: PerceptualDistance | None = None,
    checkpoint: Checkpoint | None = None,
    teacher: FlowMo | None = None,
) -> Assembled[Stage]:
    """Return a run of a tokenizer's stage, where ``checkpoint`` left it or at the beginning.

    The encoder is frozen once ``config.encoder_images`` are seen; the optimizer is then built anew with the decoder
    alone, so its moments start again (A14).

    perceptual: d_perc of the loss. teacher: of distillation.
    Raises TrainingError for a checkpoint of another model.
    """
    if checkpoint is not None and stored_model_config(checkpoint) != model.config:
        raise TrainingError(f"{checkpoint.path} is of another model")
    seen = checkpoint.about["images_seen"] if checkpoint else 0
    if config.encoder_images is not None and seen >= config.encoder_images:
        model.encoder.requires_grad_(False)
    parts = LossParts(perceptual, world.average, teacher, config.batch_size)
    stage = STAGES[config.stage].stage(model.to(world.device), config, parts)
    moments = checkpoint is not None and checkpoint.about["encoder_frozen"] == _is_frozen(model)
    return started(stage, config, world, checkpoint, moments, _scales(model, config))


def started(
    stage: AnyStage,
    config: RunConfig,
    world: World,
    checkpoint: Checkpoint | None,
    moments: bool = True,
    scales: Mapping[str, float] | None = None,
) -> Assembled[AnyStage]:
    """Return a stage spread over the world, with its state where ``checkpoint`` left it or fresh.

    moments: whether those of the checkpoint are taken over. scales: of the learning rate, by parameter name (muP).
    """
    ready = spread(stage, world, config.strategy, config.recompute_blocks, config.compile, config.chosen_precision)
    state, meter = TrainState.start(stage.model, config, scales), Meter()
    if checkpoint is not None:
        checkpoint.restore(state, world, moments=moments)
        meter.sums |= checkpoint.meter(world.device)
    return Assembled(stage, ready, state, meter)


def _is_frozen(model: FlowMo) -> bool:
    """Return whether no weight of the encoder trains: also where it has none that could."""
    return not any(p.requires_grad for p in model.encoder.parameters())


def _scales(model: FlowMo, config: ImageRunConfig) -> dict[str, float]:
    """Return the factor on the learning rate of each parameter: muP's times ``config.learning_rates``.

    Raises ConfigError for muP with Muon.
    """
    if config.optimizer == "muon" and any(
        c.width_multiplier != 1 for c in (model.config.encoder, model.config.decoder)
    ):
        raise ConfigError("muP's learning rates are Adam's: use optimizer=adam, or a model without base_width")
    rates, inside = config.learning_rates, set(block_matrices(model))

    def share(name: str) -> float:
        own = 1.0
        if name.startswith("decoder.linear."):
            own = rates.linear
        elif name.startswith("decoder.readout."):
            own = rates.readout
        elif name in inside:
            own = rates.blocks
        return own * (rates.encoder if name.startswith("encoder.") else 1.0)

    return {name: scale * share(name) for name, scale in learning_rate_scales(model).items()}


def _about(model: FlowMo) -> dict[str, Any]:
    return {"model_config": to_dict(model.config), "encoder_frozen": _is_frozen(model)}


TOKENIZER = ModelKind(lambda model: FlowMo(model.config), save_model, _about)


def crop_size(model: FlowMoConfig, config: ImageRunConfig) -> int:
    """Return the side of the images that the run trains on. Raises ConfigError for one that the model cannot take."""
    size = config.crop_size or model.image_size
    for side in (model.encoder, model.decoder):
        if size % side.patch_size or size > model.image_size:
            raise ConfigError(
                f"crop_size {size} must be a multiple of the patch size {side.patch_size} and at most the model's "
                f"image_size {model.image_size}"
            )
    return size


def raw_model(folder: Path) -> FlowMo:
    """Return the model with the raw weights of a checkpoint, or of the newest in a folder, not their average (D4).

    Raises TrainingError where there is none that is whole.
    """
    checkpoint = read_any(folder)
    model = FlowMo(stored_model_config(checkpoint))
    state = TrainState.start(model, replace(checkpoint.train_config, weight_normalization=False))
    checkpoint.restore(state, World(), moments=False)
    return model.eval()


def start_of(
    name: str, load: Callable[[str, bool], FlowMo], raw: bool = False, preset_name: str | None = None
) -> FlowMo:
    """Return the model that the training of a decoder starts from, with averaged weights.

    load: gives the model of a name; its raw weights, of a released .pth, where the second argument is True.
    raw: whether the weights are to be those before averaging (D4).
    preset_name: a preset that the model must be of.
    Raises ConfigError where there are no raw weights, WeightsError for a model of another preset.
    """
    path, released = Path(name), Path(name).suffix in (".pth", ".pt")
    if raw and path.is_dir() and (checkpoints(path) or checkpoint_folder(name)):
        model = raw_model(path)
    elif raw and not released and "raw" not in read_weights_about(weights_path(name)).get("weights", ""):
        raise ConfigError(
            f"{name} holds averaged weights, and raw ones are wanted; give a released .pth file, the folder of a run "
            "with its checkpoints, or raw_before_cooldown.safetensors; or leave out --recipe"
        )
    else:
        model = load(name, raw and released)
    if preset_name:
        wanted, found = to_dict(preset(preset_name)), to_dict(model.config)
        other = [
            f"{setting}: {found[setting]} there, {wanted[setting]} wanted"
            for setting in wanted
            if wanted[setting] != found[setting]
        ]
        if other:
            raise WeightsError(
                f"{name} is not of the configuration {preset_name} ({', '.join(other)}); give its own weights, or "
                "leave --preset out"
            )
    return model


def averaged_model(folder: str | Path) -> FlowMo:
    """Return the model with the averaged weights of a checkpoint, or of the newest one in a run's folder, on the CPU.

    They are rounded as ``model.safetensors`` stores them, so that both have one fingerprint. Raises TrainingError where
    there is none that is whole, or it is not of a tokenizer.
    """
    checkpoint = read_any(Path(folder))
    model = FlowMo(stored_model_config(checkpoint))
    state = TrainState.start(model, replace(checkpoint.train_config, weight_normalization=False))
    checkpoint.restore(state, World(), moments=False)
    model.load_state_dict({name: w.half().float() for name, w in state.ema.weights.items()}, strict=False)
    return model.eval()


def read_any(folder: Path) -> Checkpoint:
    """Return the checkpoint that a folder is, or else the newest one in it.

    Raises TrainingError where there is none that is whole.
    """
    if (folder / ABOUT).exists():
        return read_checkpoint(folder)
    checkpoint = read_newest(folder)
    if checkpoint is None:
        raise TrainingError(f"{folder} holds neither a model nor checkpoints; name the folder of a run, or a file")
    return checkpoint


def stored_model_config(checkpoint: Checkpoint) -> FlowMoConfig:
    """Return the model configuration of a checkpoint. Raises ConfigError for one that this version does not know."""
    return from_dict(FlowMoConfig, checkpoint.about["model_config"])


def check_same(checkpoint: Checkpoint, asked: RunConfig) -> None:
    """Raise TrainingError for settings that would make another run of the one in the checkpoint."""
    a, b = to_dict(checkpoint.train_config), to_dict(asked)
    changed = [name for name in a if name not in b or (a[name] != b[name] and name not in MAY_CHANGE)]
    if "stage" in changed:
        changed = ["stage"]
    if changed:
        raise TrainingError(
            f"{checkpoint.path.parent} holds a run with other settings "
            f"({', '.join(f'{n}: {a[n]} there' for n in changed)}); give another folder, or the same settings. "
            f"Only {', '.join(sorted(MAY_CHANGE))} may change"
        )


def cooled_down(config: AnyConfig, checkpoint: Checkpoint, images: int) -> AnyConfig:
    """Return the run's settings with a cool-down over its next ``images``.

    Where the checkpoint is already of that cool-down, it is over the images that are left of it.
    """
    if checkpoint.about.get("cooldown") == images:
        return replace(config, images=checkpoint.train_config.images, cooldown_images=images)
    return replace(config, images=checkpoint.about["images_seen"] + images, cooldown_images=images)
