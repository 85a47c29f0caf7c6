"""What a run trains: the plan that :func:`flowmo.training.train` is given, for tokenizers and for generators."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

import torch
from torch import nn

from ..data import BatchLoader, DataFingerprint, ImageSource, fingerprint_of
from ..generation import Generator
from ..tokenizer import FlowMo
from .checkpoints.checkpoint import Checkpoint
from .configuration.config import ImageRunConfig
from .configuration.run_config import RunConfig
from .data.token_data import TokenLoader, TokenSet
from .generator import GENERATOR, GeneratorTrainConfig, assemble_generator
from .monitoring.validation import Validation
from .processes.distributed import World
from .start import TOKENIZER, Assembled, assemble, crop_size, stored_model_config
from .trained import Loader, ModelKind

Model = TypeVar("Model", bound=nn.Module)
Config = TypeVar("Config", bound=RunConfig)
Source = TypeVar("Source")
MakeValidation = Callable[[Any, World], Validation]
"""(model at the beginning, the processes) -> what validates its EMA; asked in every process."""


MeasureCost = Callable[[Any, Any, torch.device, int], tuple[float, float]]
"""(model, settings, device, images seen) -> the operations of one image, and those that the device
can do in a second."""


def always(checkpoint: Checkpoint) -> bool:
    """Return True, which accepts the run of any checkpoint."""
    return True


@dataclass(frozen=True)
class Plan(ABC, Generic[Model, Config, Source]):
    """Base of the plans: the settings of a run, and the model it begins with.

    The model is made by ``new_model`` after ``torch.manual_seed(config.seed)``, and only where the folder holds no
    checkpoint to go on from.
    """

    config: Config  # settings of the run
    new_model: Callable[[], Model]  # makes the model that a run begins with
    validation: MakeValidation | None = None  # of the EMA, every ``config.validate_every``
    fits: Callable[[Checkpoint], bool] = always  # whether a checkpoint is of the run that is meant
    about: dict[str, Any] = field(default_factory=dict)  # more for the checkpoints
    cost: MeasureCost | None = None  # for the utilisation in the log, such as ``profiling.flops.tokenizer_cost``

    @property
    @abstractmethod
    def kind(self) -> ModelKind:
        """Return how the models of this plan are made and written."""

    @abstractmethod
    def stored_model(self, checkpoint: Checkpoint) -> Model:
        """Return a model of the configuration of a checkpoint, whose weights are to be replaced."""

    @abstractmethod
    def assemble(self, model: Model, config: Config, world: World, checkpoint: Checkpoint | None) -> Assembled[Any]:
        """Return the run of this process. Raises TrainingError for a checkpoint of another model."""

    @abstractmethod
    def loader(self, source: Source, model: Model, config: Config, world: World, start: int) -> Loader:
        """Return this process's batches, from position ``start`` on."""

    def to(self, device: torch.device) -> None:
        """Move what the loss needs beside the model to the device."""

    def data_fingerprint(self, source: Source) -> DataFingerprint | None:
        """Return what a run remembers of its data, to say when they have changed; None where nothing is remembered."""
        return None

    def rebuild_after(self, config: Config) -> int | None:
        """Return the images after which the run is to be built anew, or None."""
        return None

    def patience(self, config: Config) -> int | None:
        """Return the patience of a run that validation may end, or None."""
        return None

    def seeded_model(self) -> Model:
        """Return the model that the run begins with."""
        torch.manual_seed(self.config.seed)
        return self.new_model()


@dataclass(frozen=True)
class TokenizerPlan(Plan[FlowMo, ImageRunConfig, ImageSource]):
    """Training of a tokenizer on images, in the stage that the configuration is of."""

    perceptual: nn.Module | None = None  # d_perc of the loss
    teacher: FlowMo | None = None  # of distillation

    @property
    def kind(self) -> ModelKind:
        return TOKENIZER

    def stored_model(self, checkpoint: Checkpoint) -> FlowMo:
        return FlowMo(stored_model_config(checkpoint))

    def assemble(
        self, model: FlowMo, config: ImageRunConfig, world: World, checkpoint: Checkpoint | None
    ) -> Assembled[Any]:
        crop_size(model.config, config)  # tells early that crops do not fit the model
        return assemble(model, config, world, self.perceptual, checkpoint, self.teacher)

    def loader(
        self, source: ImageSource, model: FlowMo, config: ImageRunConfig, world: World, start: int
    ) -> BatchLoader:
        return BatchLoader(
            source,
            config.batch_size // world.size,
            crop_size(model.config, config),
            config.seed,
            start=start,
            flip=config.flip,
            workers=config.workers,
            rank=world.rank,
            world=world.size,
            scale_to=model.config.image_size,
        )

    def to(self, device: torch.device) -> None:
        for network in (self.perceptual, self.teacher):
            if network is not None:
                network.to(device)

    def data_fingerprint(self, source: ImageSource) -> DataFingerprint:
        return fingerprint_of(source)

    def rebuild_after(self, config: ImageRunConfig) -> int | None:
        return config.encoder_images or None

    def patience(self, config: ImageRunConfig) -> int | None:
        return config.patience


@dataclass(frozen=True)
class GeneratorPlan(Plan[Generator, GeneratorTrainConfig, TokenSet]):
    """Training of a generator on tokens with labels (Section 3.5)."""

    @property
    def kind(self) -> ModelKind:
        return GENERATOR

    def stored_model(self, checkpoint: Checkpoint) -> Generator:
        return self.new_model()

    def assemble(
        self, model: Generator, config: GeneratorTrainConfig, world: World, checkpoint: Checkpoint | None
    ) -> Assembled[Any]:
        return assemble_generator(model, config, world, checkpoint)

    def loader(
        self, source: TokenSet, model: Generator, config: GeneratorTrainConfig, world: World, start: int
    ) -> TokenLoader:
        return TokenLoader(source, config.batch_size // world.size, config.seed, start, world.rank, world.size)
