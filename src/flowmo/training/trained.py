"""What the loop asks of the things that it trains: batches, loaders, and how models of a kind are made and written."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol, Self

import torch
from torch import nn


class TrainBatch(Protocol):
    """What the loop asks of a batch, of images or of tokens. skipped: names of broken images that others stand for."""

    @property
    def names(self) -> Sequence[str]: ...

    @property
    def skipped(self) -> Sequence[str]: ...

    def part(self, k: int, of: int) -> Self:
        """Return micro-batch ``k`` of ``of``."""
        ...

    def to(self, device: torch.device | str) -> Self: ...


class Loader(Protocol):
    """Batches forever, in an order that the seed and the position fix; a context manager."""

    def __iter__(self) -> Iterator[Any]: ...

    def __enter__(self) -> Self: ...

    def __exit__(self, *_: object) -> None: ...


class ModelKind(NamedTuple):
    """How models of one kind are made, written and described."""

    new: Callable[[Any], nn.Module]  # a model of the same configuration, on the CPU or without memory of its own
    save: Callable[[Any, Path, torch.dtype, dict[str, Any]], object]  # write a model: path, dtype, about
    about: Callable[[Any], dict[str, Any]]  # what checkpoints say about a model, as plain JSON data


def with_weights(kind: ModelKind, model: nn.Module, weights: dict[str, torch.Tensor]) -> nn.Module:
    """Return a model of the same configuration that holds ``weights``, named as its parameters, on the CPU.

    Nothing is initialised to be thrown away: the new one takes the tensors themselves, and copies of the buffers.
    """
    with torch.device("meta"):
        made = kind.new(model)
    buffers = dict(model.named_buffers())
    for prefix, module in made.named_modules():
        for name in module._buffers:
            stored = buffers[f"{prefix}.{name}" if prefix else name]
            module._buffers[name] = None if stored is None else stored.detach().cpu().clone()
    made.load_state_dict(weights, assign=True)
    return made
