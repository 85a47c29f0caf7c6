"""A stage as the loop runs it: a module that holds the model and gives the loss of one micro-batch."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, Self

import torch
from torch import Tensor, nn

from ..arch.mup import learning_rate_scales
from ..config import to_dict
from ..data import Batch
from ..flow import shifted_grid
from ..stages import distillation_loss, draw, draw_chain, mode_matching_loss, mode_seeking_loss
from ..stages.autoencode import autoencode_loss
from ..stages.mode_matching import PerceptualDistance
from ..tokenizer import FlowMo
from ..weights import save_model
from . import schedule
from .config import TrainConfig


class LossTerms(Protocol):
    """What a stage returns: a named tuple of scalars, of which ``total`` is minimised. ``bit_share`` may be a tensor;
    any but ``total`` may be None."""

    @property
    def total(self) -> Tensor: ...

    def _asdict(self) -> dict[str, Tensor | None]: ...


class TrainBatch(Protocol):
    """What the loop asks of a batch, of images or of tokens. skipped: names of broken images that others stand for."""

    @property
    def names(self) -> Sequence[str]: ...

    @property
    def skipped(self) -> Sequence[str]: ...

    def part(self, k: int, of: int) -> Self:
        """Micro-batch ``k`` of ``of``."""
        ...

    def to(self, device: torch.device | str) -> Self: ...


class Loader(Protocol):
    """Batches forever, in an order that the seed and the position fix; a context manager."""

    def __iter__(self) -> Iterator[Any]: ...

    def __enter__(self) -> Self: ...

    def __exit__(self, *_: object) -> None: ...


class TrainStep(nn.Module):
    """Base of the stages. ``model`` trains; all else that a loss needs must not be a parameter of this module.

    The loop calls the module with one micro-batch, a generator on the model's device that gives all randomness, and the
    images seen so far. ends_after: images after which the run is to be built anew, None for never.
    """

    model: nn.Module
    ends_after: int | None = None

    def forward(self, batch: Any, generator: torch.Generator, images_seen: int) -> LossTerms:
        raise NotImplementedError

    def learning_rate_scales(self) -> Mapping[str, float]:
        """Factors on the learning rate by parameter name; 1 where there is none."""
        return {}

    def new_model(self) -> nn.Module:
        """A model of the same kind, which takes the weights of this one for looking at them and for saving."""
        raise NotImplementedError

    def save(self, model: nn.Module, path: Path, about: dict[str, Any], dtype: torch.dtype = torch.float16) -> None:
        """Write what :meth:`new_model` made and the loop filled."""
        raise NotImplementedError

    def about(self) -> dict[str, Any]:
        """What checkpoints say about the model, as plain JSON data."""
        return {}


@dataclass(frozen=True)
class LossParts:
    """What the tokenizer's losses need beside the model. perceptual: d_perc, or None. average: over the processes.
    teacher: of distillation, frozen."""

    perceptual: PerceptualDistance | None = None
    average: Callable[[Tensor], Tensor] | None = None
    teacher: FlowMo | None = None


class TokenizerStep(TrainStep):
    """Stage 1A, mode matching, Stage 1B, mode seeking, distillation (O11), or the regression of F5, as ``config.stage``
    says."""

    model: FlowMo

    def __init__(self, model: FlowMo, config: TrainConfig, parts: LossParts | None = None) -> None:
        super().__init__()
        self.model, self.config = model, config
        self.parts = parts or LossParts()
        self.ends_after = config.freeze_encoder_after or None

    def freeze_encoder(self) -> None:
        self.model.encoder.requires_grad_(False)

    def forward(self, batch: Batch, generator: torch.Generator, images_seen: int) -> LossTerms:
        config, parts, images = self.config, self.parts, batch.images
        average = parts.average if config.entropy_over == "processes" else None
        if config.stage == "autoencode":
            return autoencode_loss(
                self.model, images, config.losses, parts.perceptual, config.perceptual_share, average
            )
        if config.stage == "distillation":
            return self.distillation(images, generator, images_seen)
        levels = schedule.noise_levels(config, images_seen)
        draws = draw(images, levels, schedule.code_dropout(config, images_seen), generator)
        if config.stage == "mode_seeking":
            s = config.sample
            chain = None
            if s.mode == "chain" and s.weight:
                chain = draw_chain(images, s.num_steps, generator, s.share, self.fixed_grid())
            return mode_seeking_loss(
                self.model,
                images,
                draws,
                chain,
                s.weight,
                parts.perceptual,
                config.losses,
                s.share,
                s.recompute,
                average,
            )
        return mode_matching_loss(
            self.model, images, draws, config.losses, parts.perceptual, config.perceptual_share, average
        )

    def distillation(self, images: Tensor, generator: torch.Generator, images_seen: int) -> LossTerms:
        """All micro-batches of an update take the same number of steps. A single step is not worth computing again."""
        config, s, d = self.config, self.config.sample, self.config.distill
        num_steps = d.steps_at(images_seen // config.batch_size)
        grid = shifted_grid(num_steps, self.model.config.sampler.rho)
        chain, draws = draw_chain(images, num_steps, generator, s.share, grid), None
        if d.flow_weight:
            levels = schedule.noise_levels(config, images_seen)
            draws = draw(images, levels, schedule.code_dropout(config, images_seen), generator)
        return distillation_loss(
            self.model,
            images,
            chain,
            self.parts.perceptual,
            d.pixel_weight,
            s.weight,
            self.parts.teacher,
            s.recompute and num_steps > 1,
            draws,
            d.flow_weight,
        )

    def fixed_grid(self) -> Tensor | None:
        """The noise levels of every chain of Stage 1B; None where each has its own."""
        s = self.config.sample
        if s.grid == "random":
            return None
        return shifted_grid(s.num_steps, self.model.config.sampler.rho if s.rho is None else s.rho)

    def learning_rate_scales(self) -> Mapping[str, float]:
        return learning_rate_scales(self.model)

    def new_model(self) -> FlowMo:
        return FlowMo(self.model.config)

    def save(self, model: nn.Module, path: Path, about: dict[str, Any], dtype: torch.dtype = torch.float16) -> None:
        assert isinstance(model, FlowMo)
        save_model(model, path, dtype, about)

    def about(self) -> dict[str, Any]:
        frozen = not any(p.requires_grad for p in self.model.encoder.parameters())
        return {"model_config": to_dict(self.model.config), "encoder_frozen": frozen}
