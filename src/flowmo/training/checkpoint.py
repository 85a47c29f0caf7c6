"""The state of a run: everything that a resumed run needs to go on exactly, in one file."""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ..config import from_json, to_json
from ..errors import TrainingError
from ..files import replacing
from ..tokenizer import FlowMo
from .averages import MovingAverage, WeightNormalization
from .config import TrainConfig

FORMAT = "flowmo-checkpoint-1"
AFTER_DIVERGENCE = (
    "Run the same command to go on from the last checkpoint; if it happens again, lower learning_rate or use "
    "precision=fp32"
)


@dataclass
class TrainState:
    """A model in training. images_seen is the position in the data too; all randomness follows from it and the seed."""

    model: FlowMo
    average: MovingAverage
    normalization: WeightNormalization | None
    optimizer: torch.optim.Optimizer
    step: int = 0
    images_seen: int = 0

    @classmethod
    def start(cls, model: FlowMo, config: TrainConfig) -> TrainState:
        """Fresh moments and average around a model. Adam as published: no decay, no clipping (A12)."""
        return cls(
            model,
            MovingAverage(model),
            WeightNormalization(model) if config.weight_normalization else None,
            torch.optim.Adam(model.parameters(), lr=config.learning_rate, betas=config.betas, fused=True),
        )

    def state_dict(self) -> dict[str, Any]:
        return {
            "model": self.model.state_dict(),
            "average": self.average.average,
            "norms": self.normalization.norms if self.normalization else [],
            "optimizer": self.optimizer.state_dict(),
            "step": self.step,
            "images_seen": self.images_seen,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.model.load_state_dict(state["model"])
        for name, value in self.average.average.items():
            value.copy_(state["average"][name])
        if self.normalization:
            for norm, value in zip(self.normalization.norms, state["norms"], strict=True):
                norm.copy_(value)
        self.optimizer.load_state_dict(state["optimizer"])
        self.step, self.images_seen = state["step"], state["images_seen"]


def save_checkpoint(folder: Path, state: TrainState, config: TrainConfig) -> Path:
    """Write ``checkpoint-<images>.pt``, then remove all but the newest ``config.keep``.

    Raises TrainingError, and leaves the earlier ones, when the disk is full or a weight is not finite.
    """
    norms = torch._foreach_norm([p.detach() for p in state.model.parameters()])
    if not torch.stack(norms).isfinite().all():
        raise TrainingError(f"a weight is no longer finite at step {state.step}: nothing saved. {AFTER_DIVERGENCE}")
    path = folder / f"checkpoint-{state.images_seen:010d}.pt"
    content = state.state_dict() | {
        "format": FORMAT,
        "model_config": to_json(state.model.config),
        "train_config": to_json(config),
        "torch": str(torch.__version__),  # a plain string: reading refuses classes
    }
    try:
        with replacing(path) as part:
            torch.save(content, part)
    except OSError as error:
        raise TrainingError(f"no checkpoint could be written to {path} ({error}); earlier ones are intact") from None
    for old in checkpoints(folder)[: -config.keep]:
        old.unlink()
    return path


def checkpoints(folder: Path) -> list[Path]:
    """The checkpoints in a folder, oldest first."""
    return sorted(p for p in folder.glob("checkpoint-*.pt") if re.fullmatch(r"checkpoint-\d{10}\.pt", p.name))


def read_newest(folder: Path) -> dict[str, Any] | None:
    """The newest checkpoint that can be read, or None where there is none. A damaged one is named and passed over.

    Raises TrainingError when there are checkpoints and all are damaged.
    """
    for part in folder.glob(".checkpoint-*.part"):  # what a kill in the middle of writing left behind
        part.unlink()
    found = checkpoints(folder)
    for path in reversed(found):
        try:
            content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
            if content.get("format") != FORMAT:
                raise ValueError(f"format {content.get('format')!r}")
            return content
        except Exception as error:  # torch raises many kinds for damaged files
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            print(f"checkpoint {path} is damaged and passed over: {reason}", file=sys.stderr)
    if found:
        raise TrainingError(f"every checkpoint in {folder} is damaged; remove them to start again, or use --init")
    return None


def stored_config(content: dict[str, Any]) -> TrainConfig:
    return from_json(TrainConfig, content["train_config"])
