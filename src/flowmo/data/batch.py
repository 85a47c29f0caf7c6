"""A batch of training images, as uint8 between processes and devices, as floats where it is used."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property

import torch

from ..image_utils.scale import to_float


@dataclass(frozen=True)
class Batch:
    """A batch of training images of one size, with their labels, and what was skipped to make it."""

    pixels: torch.Tensor  # uint8 B 3 H W
    labels: torch.Tensor | None  # int64 B, None unless every picture has one
    indices: list[int]  # of the pictures shown, in the source
    names: list[str]  # of the pictures shown, in the source
    skipped: list[str]  # names of broken images that others stand in for
    position: int  # images drawn, over all ranks, once this batch is used; a loader started there goes on
    broken: list[int] = field(default_factory=list)  # where in the source those in ``skipped`` are

    @cached_property
    def images(self) -> torch.Tensor:
        """Return the images as float32 B 3 H W in [-1, 1], on the device of ``pixels``."""
        return to_float(self.pixels)

    def __len__(self) -> int:
        return len(self.indices)

    def part(self, k: int, of: int) -> Batch:
        """Return micro-batch ``k`` of ``of``: pictures k, k + of, k + 2 of, ... with their labels and names."""
        return replace(
            self,
            pixels=self.pixels[k::of],
            labels=None if self.labels is None else self.labels[k::of],
            indices=self.indices[k::of],
            names=self.names[k::of],
        )

    def to(self, device: torch.device | str) -> Batch:
        """Return the same with its tensors on a device; from pinned memory, without waiting for the copy."""
        return replace(
            self,
            pixels=self.pixels.to(device, non_blocking=True),
            labels=None if self.labels is None else self.labels.to(device, non_blocking=True),
        )

    def pin_memory(self) -> Batch:
        """Return the same in memory that a GPU copies from without waiting."""
        return replace(
            self,
            pixels=self.pixels.pin_memory(),
            labels=None if self.labels is None else self.labels.pin_memory(),
        )
