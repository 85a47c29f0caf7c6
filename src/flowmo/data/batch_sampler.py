"""The pictures of training (Section 4.1, C1) by position: order, crop and flip depend on (seed, position) alone."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import torch
from PIL import ImageOps

from ..errors import ConfigError, DataError, ImageError
from ..image_utils.crops import center_crop, random_crop, shorter_side_to
from .batch import Batch
from .sources import ImageSource

_ORDER, _AUGMENT = 0, 1  # Separate streams of random numbers under one seed.
_MAX_BROKEN_IN_A_ROW = 1000


@dataclass
class BatchSampler:
    """The batches of a training run, by the position where they start.

    Position p, counted over all ranks, fixes the image, its crop and its flip; each epoch is a fresh permutation. Rank
    r of ``world`` takes positions r, r + world, ... of a batch. It holds nothing that a process may not take with it,
    if ``source`` does not. Raises DataError for a source without images, ConfigError for other settings.
    """

    source: ImageSource  # where the images are
    batch_size: int  # of one rank
    image_size: int  # the side of a crop, in pixels
    seed: int  # of the order, the crops and the flips
    flip: bool = False  # whether half of the images are mirrored
    crop: Literal["random", "center"] = "random"  # where in an image the crop lies
    rank: int = 0  # of this process
    world: int = 1  # how many processes share the images
    scale_to: int | None = None  # the shorter side before the crop
    _orders: dict[int, np.ndarray] = field(default_factory=dict, init=False, repr=False)  # of the images, by epoch

    def __post_init__(self) -> None:
        if len(self.source) == 0:
            raise DataError(f"no images to train on: {self.source.describe()}")
        if min(self.batch_size, self.image_size, self.world) < 1 or self.seed < 0 or not 0 <= self.rank < self.world:
            raise ConfigError(
                "batch_size, image_size and world must be at least 1, seed at least 0, rank below world; got "
                f"{self.batch_size}, {self.image_size}, {self.world}, {self.seed}, {self.rank}"
            )
        if self.crop not in ("random", "center"):
            raise ConfigError(f"crop must be random or center, got {self.crop!r}")
        if self.scale_to is None:
            self.scale_to = self.image_size
        if self.scale_to < self.image_size:
            raise ConfigError(f"scale_to {self.scale_to} is smaller than image_size {self.image_size}")

    @property
    def step(self) -> int:
        """Return how many positions lie from one batch to the next."""
        return self.batch_size * self.world

    def batch(self, start: int) -> Batch:
        """Return this rank's share of the positions from ``start`` on.

        Raises DataError after a thousand broken images in a row.
        """
        pixels: list[np.ndarray] = []
        indices: list[int] = []
        broken: list[int] = []
        for position in range(start + self.rank, start + self.step, self.world):
            index, array = self._good(position, broken)
            indices.append(index)
            pixels.append(array)
        labels = [self.source.label(i) for i in indices]
        known = [label for label in labels if label is not None]
        return Batch(
            torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2).contiguous(),  # B 3 H W
            torch.tensor(known) if len(known) == len(labels) else None,
            indices,
            [self.source.name(i) for i in indices],
            [self.source.name(i) for i in broken],
            start + self.step,
            broken,
        )

    def _good(self, position: int, broken: list[int]) -> tuple[int, np.ndarray]:
        """Return the image at a position with its place in the source, or the next good one after it.

        Which one that is, is a pure function of the position too.
        """
        for later in range(_MAX_BROKEN_IN_A_ROW):
            index = self._index(position + later)
            try:
                return index, self._pixels(index, position)
            except ImageError:
                # Those after the first are named when their own position comes.
                if later == 0:
                    broken.append(index)
        raise DataError(
            f"{_MAX_BROKEN_IN_A_ROW} images in a row could not be read, among them {self.source.name(index)}; "
            f"check the data: {self.source.describe()}"
        )

    def _pixels(self, index: int, position: int) -> np.ndarray:
        random = self._generator(_AUGMENT, position)
        image = shorter_side_to(self.source[index], self.scale_to or self.image_size)
        if self.crop == "random":
            image = random_crop(image, self.image_size, random)
        else:
            image = center_crop(image, self.image_size)
        if self.flip and random.random() < 0.5:
            image = ImageOps.mirror(image)
        return np.array(image)  # H W 3, uint8

    def _index(self, position: int) -> int:
        epoch, slot = divmod(position, len(self.source))
        order = self._orders.get(epoch)
        if order is None:
            order = self._generator(_ORDER, epoch).permutation(len(self.source))
            self._orders = {e: o for e, o in self._orders.items() if abs(e - epoch) <= 1} | {epoch: order}
        return int(order[slot])

    def _generator(self, stream: int, number: int) -> np.random.Generator:
        return np.random.Generator(np.random.PCG64(np.random.SeedSequence([self.seed, stream, number])))
