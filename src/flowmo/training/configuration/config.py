"""How a tokenizer is trained: a run's settings and a stage's in one frozen dataclass (Section 4.1, Table 6; A2, A12).

Each command has its own, which knows the settings of its stage alone. ``STAGES`` is the list of the stages; adding one
adds a configuration and an entry there.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, NamedTuple

from torch import Tensor

from ...errors import require
from ...stages import (
    Autoencode,
    AutoencodeConfig,
    Distillation,
    DistillationConfig,
    ModeMatching,
    ModeMatchingConfig,
    ModeSeeking,
    ModeSeekingConfig,
    Stage,
    StageConfig,
    reconstruct,
)
from ...tokenizer import FlowMo
from .run_config import RunConfig


@dataclass(frozen=True)
class LearningRates:
    """Shares of ``learning_rate`` that parts of a tokenizer train at, beside muP's factors."""

    linear: float = 0.05  # the linear map of a transform start, which is nearly right already (O12)
    readout: float = 1.0  # the decoder's last layer, whose noise is texture in the image
    blocks: float = 1.0  # the matrices inside the blocks, those that Muon moves
    encoder: float = 1.0  # all of the encoder

    def __post_init__(self) -> None:
        for name in ("linear", "readout", "blocks", "encoder"):
            value = getattr(self, name)
            require(0 <= value < math.inf, f"learning_rates.{name} must be at least 0, got {value}")


@dataclass(frozen=True)
class ImageRunConfig(RunConfig, StageConfig):
    """Base of the runs that train a tokenizer, on images; each adds the settings of its stage.

    The defaults suit a short run on one device. The folder runs/ holds the commands of the packaged models,
    ``training.recipes`` the published settings.
    """

    crop_size: int | None = None  # side of the crops, at the scale of the model's ``image_size``, as it is usually (C1)
    flip: bool = False  # half of the images mirrored
    learning_rates: LearningRates = field(default_factory=LearningRates)  # of parts of the model
    workers: int = 2  # processes that decode images, for each training process

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.crop_size is None or self.crop_size >= 1, f"crop_size must be at least 1, got {self.crop_size}")
        require(0 <= self.workers <= 1024, f"workers must be at least 0 and at most 1024, got {self.workers}")


@dataclass(frozen=True)
class TrainConfig(ImageRunConfig, ModeMatchingConfig):
    """Stage 1A, ``flowmo train``.

    A clean prediction at low noise gives rare gradients of enormous size; set ``gradient_clip`` for one.
    """

    def __post_init__(self) -> None:
        ImageRunConfig.__post_init__(self)
        ModeMatchingConfig.__post_init__(self)


@dataclass(frozen=True)
class AutoencodeTrainConfig(ImageRunConfig, AutoencodeConfig):
    """The regression of the image from its code (F5), ``flowmo train --stage autoencode``."""

    def __post_init__(self) -> None:
        ImageRunConfig.__post_init__(self)
        AutoencodeConfig.__post_init__(self)


@dataclass(frozen=True)
class PostTrainConfig(ImageRunConfig, ModeSeekingConfig):
    """Stage 1B, ``flowmo posttrain``."""

    def __post_init__(self) -> None:
        ImageRunConfig.__post_init__(self)
        ModeSeekingConfig.__post_init__(self)


@dataclass(frozen=True)
class DistillTrainConfig(ImageRunConfig, DistillationConfig):
    """Few-step decoding (O11), ``flowmo distill``."""

    def __post_init__(self) -> None:
        ImageRunConfig.__post_init__(self)
        DistillationConfig.__post_init__(self)


class StageEntry(NamedTuple):
    """What the list of the stages says of one: all in which it differs for those who start and validate its runs."""

    config: type[Any]  # the configuration of the runs, an ImageRunConfig
    stage: Callable[..., Stage]  # makes the stage of a model, that configuration and LossParts
    title: str = ""  # what messages call it; without, its name
    command: str | None = None  # its own command of ``flowmo``
    decode: Callable[[FlowMo, Tensor], Tensor] | None = None
    """(model, images) -> the images that validation compares with them; None for samples of the model's sampler."""
    refused: Mapping[str, str] = MappingProxyType({})
    """Settings of other stages that it cannot be told, as "name" or "table.name", each with the reason in words."""

    @property
    def run_by(self) -> str:
        """Return, in words, what runs the stage."""
        if self.command is not None:
            return f"flowmo {self.command}"
        return "flowmo.training.train in Python" if self.config.decoder_only else "flowmo train"


STAGES: dict[str, StageEntry] = {
    "mode_matching": StageEntry(TrainConfig, ModeMatching, "Stage 1A"),
    "autoencode": StageEntry(AutoencodeTrainConfig, Autoencode, decode=reconstruct),
    "mode_seeking": StageEntry(PostTrainConfig, ModeSeeking, "Stage 1B", "posttrain"),
    "distillation": StageEntry(
        DistillTrainConfig,
        Distillation,
        command="distill",
        refused=dict.fromkeys(
            ("sample.mode", "sample.num_steps", "sample.grid"), "has its own numbers of steps: set distill.steps"
        ),
    ),
}
"""Every stage by the name that checkpoints store."""
FIRST_STAGE = "mode_matching"
"""The stage of a run that names none."""
