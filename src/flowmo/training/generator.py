"""Stage 2: the generator's training, in the loop of every stage (Section 3.5, Appendix A.3; F1)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor

from ..config import from_dict, to_dict
from ..errors import TrainingError, require
from ..generation import (
    NO_CLASS,
    DecodeSettings,
    Generator,
    GeneratorConfig,
    MaskedLoss,
    draw_masks,
    masked_loss,
    save_generator,
)
from ..generation.loss import MaskedDraws
from ..generation.schedule import Schedule, random_masks
from ..stages import Stage
from .checkpoints.checkpoint import Checkpoint
from .configuration.run_config import RunConfig
from .data.token_data import TokenBatch, TokenSet
from .processes.distributed import World
from .start import Assembled, started
from .trained import ModelKind

IMAGENET = 1_281_167


@dataclass(frozen=True)
class GeneratorTrainConfig(RunConfig):
    """The training of a generator; what the paper leaves open is MaskGIT's or the tokenizer's (F1).

    docs/DEVIATIONS.md says which.
    """

    trains: ClassVar[str] = "generator"  # what a run trains

    weight_normalization: bool = False  # the tokenizer's alone (A15)
    label_dropout: float = 0.1  # share of images whose class is hidden, for guidance
    label_smoothing: float = 0.0  # of the cross-entropy; 0.1 in MaskGIT
    mask_schedule: Schedule = "arccos"  # see ``masked_share``

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("label_dropout", "label_smoothing"):
            require(0 <= getattr(self, name) < 1, f"{name} must be at least 0 and below 1, got {getattr(self, name)}")


def published() -> GeneratorTrainConfig:
    """Return what Appendix A.3 states: 300 epochs of ImageNet, batch 128, learning rate 1e-4.

    The rest is not published (F1): here warm-up over 5,000 steps, a constant rate, and an EMA of decay 0.9999.
    """
    return GeneratorTrainConfig(
        images=300 * IMAGENET // 128 * 128,
        batch_size=128,
        learning_rate=1e-4,
        warmup_images=5_000 * 128,
        cooldown_images=0,
        ema_decay=0.9999,
        precision="bf16",
        tf32=True,
        validate_every=10_000 * 128,
    )


GENERATOR_RECIPES = {"published": published}


class GeneratorStep(Stage):
    """Stage 2 on one micro-batch of tokens: its masks, and the masked cross-entropy."""

    model: Generator

    def __init__(self, model: Generator, config: GeneratorTrainConfig) -> None:
        super().__init__()
        self.model, self.config = model, config

    def forward(self, batch: TokenBatch, generator: torch.Generator, images_seen: int) -> MaskedLoss:
        """Return the loss of ``batch``."""
        c = self.config
        draws = draw_masks(batch.tokens, batch.labels, c.mask_schedule, c.label_dropout, generator)
        return masked_loss(self.model, batch.tokens, draws, c.label_smoothing)


def _about(model: Generator) -> dict[str, Any]:
    return {"model_config": to_dict(model.config), "classes": model.classes}


GENERATOR = ModelKind(lambda model: Generator(model.config, model.classes), save_generator, _about)


def assemble_generator(
    model: Generator, config: GeneratorTrainConfig, world: World, checkpoint: Checkpoint | None = None
) -> Assembled[GeneratorStep]:
    """Return a run where ``checkpoint`` left it, or at the beginning.

    How tokens are drawn changes no training: that of ``model`` holds, or the checkpoint's where ``model`` says nothing.
    Raises TrainingError for a checkpoint of another generator.
    """
    if checkpoint is not None:
        stored = from_dict(GeneratorConfig, checkpoint.about["model_config"])  # older ones lack later settings
        if model.config.decoding == DecodeSettings():
            model.config = replace(model.config, decoding=stored.decoding)
        stored = replace(stored, decoding=model.config.decoding)
        if stored != model.config or checkpoint.about["classes"] != model.classes:
            raise TrainingError(
                f"{checkpoint.path.parent} holds a run of another generator, or on shards of other tokens or classes; "
                "give another folder, or the run's own settings"
            )
    return started(GeneratorStep(model.to(world.device), config), config, world, checkpoint)


class HeldOut(NamedTuple):
    """Cross-entropy of held-out images, in nats a masked token."""

    validation: float  # with their classes
    validation_no_class: float  # without any
    validation_wrong_class: float  # with wrong ones


@torch.no_grad()
def held_out(
    model: Generator, data: TokenSet, config: GeneratorTrainConfig, count: int = 256, world: World | None = None
) -> HeldOut:
    """Return the cross-entropy of ``count`` images spread over the data, or of all where there are fewer.

    Each process of ``world`` measures its share, and all must call it. The masks are the same whenever it is called. A
    generator that knows its classes is best with the right ones and worst with wrong ones.
    """
    step = max(1, len(data) // count)
    tokens, labels = data.rows(range(0, min(len(data), step * count), step))
    generator = torch.Generator().manual_seed(0)
    mask = random_masks(tokens.shape[0], tokens.shape[1], config.mask_schedule, generator)
    wrong = (labels + 1 + torch.arange(len(labels)) % max(1, data.num_classes - 1)) % data.num_classes

    world = world or World()
    own = world.part(len(tokens))

    def loss(labels: Tensor) -> float:
        total = 0.0
        for i in range(own.start, own.stop, 32):
            rows = slice(i, min(i + 32, own.stop))
            part = tokens[rows].to(model.device), labels[rows].to(model.device), mask[rows].to(model.device)
            value = masked_loss(model, part[0], MaskedDraws(part[2], part[1])).cross_entropy
            total += float(value) * int(part[2].sum())
        return sum(world.gather(total)) / int(mask.sum())

    return HeldOut(loss(labels), loss(torch.full_like(labels, NO_CLASS)), loss(wrong))
