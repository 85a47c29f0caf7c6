"""Stage 2: the generator's training, in the loop of every stage (Section 3.5, Appendix A.3; F1)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from ..config import to_dict
from ..errors import TrainingError
from ..generation import NO_CLASS, Generator, MaskedLoss, draw_masks, masked_loss, save_generator
from ..generation.loss import MaskedDraws
from ..generation.schedule import Schedule, random_masks
from .checkpoint import Checkpoint
from .distributed import World, spread
from .health import Meter
from .run_config import RunConfig, require
from .state import TrainState
from .steps import TrainStep
from .token_data import TokenBatch, TokenSet

IMAGENET = 1_281_167


@dataclass(frozen=True)
class GeneratorTrainConfig(RunConfig):
    """Training of a generator; what the paper leaves open is MaskGIT's or the tokenizer's (docs/DEVIATIONS.md, F1).

    label_dropout: the share of images whose class is hidden, for guidance. label_smoothing: of the cross-entropy; 0.1
    in MaskGIT. mask_schedule: see ``masked_share``.
    """

    trains: ClassVar[str] = "generator"

    weight_normalization: bool = False
    label_dropout: float = 0.1
    label_smoothing: float = 0.0
    mask_schedule: Schedule = "arccos"

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("label_dropout", "label_smoothing"):
            require(0 <= getattr(self, name) < 1, f"{name} must be at least 0 and below 1, got {getattr(self, name)}")


def published() -> GeneratorTrainConfig:
    """What Appendix A.3 states: 300 epochs of ImageNet, batch 128, learning rate 1e-4. The rest is not published (F1):
    here warm-up over 5,000 steps, a constant rate, and an average of decay 0.9999."""
    return GeneratorTrainConfig(
        images=300 * IMAGENET // 128 * 128,
        batch_size=128,
        learning_rate=1e-4,
        warmup_images=5_000 * 128,
        cooldown_images=0,
        ema_decay=0.9999,
        precision="bf16",
    )


RECIPES: dict[str, Callable[[], GeneratorTrainConfig]] = {"published": published}


class GeneratorStep(TrainStep):
    """Masked cross-entropy of one micro-batch of tokens."""

    model: Generator

    def __init__(self, model: Generator, config: GeneratorTrainConfig) -> None:
        super().__init__()
        self.model, self.config = model, config

    def forward(self, batch: TokenBatch, generator: torch.Generator, images_seen: int) -> MaskedLoss:
        c = self.config
        draws = draw_masks(batch.tokens, batch.labels, c.mask_schedule, c.label_dropout, generator)
        return masked_loss(self.model, batch.tokens, draws, c.label_smoothing)

    def new_model(self) -> Generator:
        return Generator(self.model.config, self.model.classes)

    def save(self, model: nn.Module, path: Path, about: dict[str, Any], dtype: torch.dtype = torch.float16) -> None:
        assert isinstance(model, Generator)
        save_generator(model, path, dtype, about)

    def about(self) -> dict[str, Any]:
        return {"model_config": to_dict(self.model.config), "classes": self.model.classes}


class AssembledGenerator(NamedTuple):
    step: GeneratorStep
    ready: nn.Module
    state: TrainState
    meter: Meter


def assemble_generator(
    model: Generator, config: GeneratorTrainConfig, world: World, checkpoint: Checkpoint | None = None
) -> AssembledGenerator:
    """A run where ``checkpoint`` left it, or at the beginning. Raises TrainingError for a checkpoint of another
    generator."""
    step = GeneratorStep(model.to(world.device), config)
    if checkpoint is not None:
        about = step.about()
        if any(checkpoint.about[name] != about[name] for name in about):
            raise TrainingError(
                f"{checkpoint.path.parent} holds a run of another generator, or on shards of other tokens or classes; "
                "give another folder, or the run's own settings"
            )
    ready = spread(step, world, config.strategy, config.recompute_blocks, config.compile)
    state, meter = TrainState.start(step.model, config), Meter()
    if checkpoint is not None:
        checkpoint.restore(state, world)
        meter.sums |= checkpoint.meter(world.device)
    return AssembledGenerator(step, ready, state, meter)


class HeldOut(NamedTuple):
    """Cross-entropy in nats a masked token, of held-out images: with their classes, without any, with wrong ones."""

    validation: float
    validation_no_class: float
    validation_wrong_class: float


@torch.no_grad()
def held_out(model: Generator, data: TokenSet, config: GeneratorTrainConfig, count: int = 256) -> HeldOut:
    """Of ``count`` images spread over the data, or all where there are fewer; the same masks whenever it is called.
    A generator that knows its classes is best with the right ones and worst with wrong ones."""
    step = max(1, len(data) // count)
    tokens, labels = data.rows(range(0, min(len(data), step * count), step))
    generator = torch.Generator().manual_seed(0)
    mask = random_masks(tokens.shape[0], tokens.shape[1], config.mask_schedule, generator)
    wrong = (labels + 1 + torch.arange(len(labels)) % max(1, data.num_classes - 1)) % data.num_classes

    def loss(labels: Tensor) -> float:
        total = 0.0
        for i in range(0, len(tokens), 32):
            rows = slice(i, i + 32)
            part = tokens[rows].to(model.device), labels[rows].to(model.device), mask[rows].to(model.device)
            value = masked_loss(model, part[0], MaskedDraws(part[2], part[1])).cross_entropy
            total += float(value) * int(part[2].sum())
        return total / int(mask.sum())

    return HeldOut(loss(labels), loss(torch.full_like(labels, NO_CLASS)), loss(wrong))


def flops_per_image(model: Generator) -> int:
    """Floating-point operations of one training image, forward and backward: matrix products alone."""
    c = model.config
    length = c.sequence_length + 1
    linear = sum(2 * length * m.weight.numel() for m in model.modules() if isinstance(m, nn.Linear))
    return 3 * (linear + len(model.blocks) * 4 * length**2 * c.width)
