"""What all stages share: their base, what a loss is given, and the weights of the quantizer's terms (Eq. 9).

A stage is one file with its configuration, its loss, and a :class:`Stage` that draws the randomness of one micro-batch
and calls the loss. Adding one touches its file, ``training/configuration/config.py``, docs/TRAINING.md and its test.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Protocol

import torch
from torch import Tensor, nn

from ..errors import require
from ..quantize import Average, QuantizerLosses
from ..tokenizer import FlowMo

PerceptualDistance = Callable[[Tensor, Tensor], Tensor]
"""d_perc: two batches of images B 3 H W in [-1, 1] -> distances (B,). The second is the reference."""


@dataclass(frozen=True)
class StageConfig(ABC):
    """Base of the stages' configurations, which says what the loop has to know of a stage."""

    decoder_only: ClassVar[bool] = False
    """Whether the decoder alone trains, on samples that it makes, and validation may end the run."""

    @property
    @abstractmethod
    def stage(self) -> str:
        """Return the stage's name; each configuration has a field with its own."""

    @property
    def encoder_images(self) -> int | None:
        """Return the images after which the encoder is frozen: 0 where it never trains, None where it always does."""
        return 0

    @property
    def chain_steps(self) -> float:
        """Return the mean number of decoder passes with gradient for an image, beside that of the flow term."""
        return 0.0

    @property
    def has_flow_term(self) -> bool:
        """Return whether the decoder is asked for the velocity at one random noise level."""
        return True

    @property
    def lpips_network(self) -> Literal["vgg", "alex"] | None:
        """Return whose features the loss compares by LPIPS in one step, None where it has no such term."""
        return None

    @property
    def patience(self) -> int | None:
        """Return the validations in a row without progress that end the run, None where none ends it."""
        return None


@dataclass(frozen=True)
class QuantizerWeights:
    """The lambdas of the quantizer's terms in Eq. 9, as the released weights were trained (A1, A11)."""

    entropy: float = 0.0025  # of L_ent
    commitment: float = 0.000625  # of L_commit

    def __post_init__(self) -> None:
        for name in ("entropy", "commitment"):
            value = getattr(self, name)
            require(0 <= value < math.inf, f"losses.{name} must be at least 0, got {value}")

    def quantizer_loss(self, losses: QuantizerLosses) -> Tensor:
        """Return the weighted sum of the quantizer's terms, a scalar."""
        return self.entropy * losses.entropy + self.commitment * losses.commitment


@dataclass(frozen=True)
class LossParts:
    """What a stage is given beside the model and its configuration."""

    perceptual: PerceptualDistance | None = None  # d_perc
    average: Average | None = None  # the mean over the processes
    teacher: FlowMo | None = None  # of distillation, frozen
    batch_size: int = 1  # images of one update, over all processes


class LossTerms(Protocol):
    """What a stage returns: a named tuple of scalars, of which ``total`` is minimised.

    ``bit_share`` may be a tensor. Any but ``total`` may be None.
    """

    @property
    def total(self) -> Tensor: ...

    def _asdict(self) -> dict[str, Tensor | None]: ...


class ImageBatch(Protocol):
    """What a tokenizer's stage asks of a batch: ``images``, float B 3 H W in [-1, 1]."""

    @property
    def images(self) -> Tensor: ...


class Stage(nn.Module, ABC):
    """Base of the stages. Only ``model`` trains: what else a loss needs must not be a parameter of this module."""

    model: nn.Module
    parts: LossParts

    @abstractmethod
    def forward(self, batch: Any, generator: torch.Generator, images_seen: int) -> LossTerms:
        """Return the loss terms of one micro-batch. All randomness comes from ``generator``, on the model's device."""
