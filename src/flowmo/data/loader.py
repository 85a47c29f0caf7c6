"""Training batches in an order that depends on (seed, position) alone, so a run resumes exactly where it stopped."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Literal, Self

import numpy as np
import torch
from PIL import ImageOps

from ..errors import ConfigError, DataError, ImageError
from .batch import Batch
from .crops import center_crop, random_crop, shorter_side_to
from .sources import ImageSource

_ORDER, _AUGMENT = 0, 1  # Separate streams of random numbers under one seed.
_MAX_BROKEN_SHARE, _MAX_BROKEN = 0.01, 10
_MAX_BROKEN_IN_A_ROW = 1000


class BatchLoader:
    """Batches forever: each epoch is a fresh permutation of the source, decoded by background threads.

    Position p (images drawn so far, over all ranks) fixes the image and its crop and flip. Rank r of ``world`` takes
    positions r, r + world, ...; ``position`` says where the next batch starts. A broken image is replaced by
    the next good one in the order, and counted by name in ``skipped``; DataError once more than 10, and more
    than 1 % of the images drawn, were broken. scale_to: the shorter side before the crop, ``image_size`` by default
    (C1); a larger one gives crops at a finer scale. Use it as a context manager, or call ``close()``.
    """

    def __init__(
        self,
        source: ImageSource,
        batch_size: int,
        image_size: int,
        seed: int,
        start: int = 0,
        flip: bool = False,
        crop: Literal["random", "center"] = "random",
        workers: int = 2,
        rank: int = 0,
        world: int = 1,
        scale_to: int | None = None,
    ) -> None:
        if len(source) == 0:
            raise DataError(f"no images to train on: {source.describe()}")
        if min(batch_size, image_size, workers, world) < 1 or min(seed, start) < 0 or not 0 <= rank < world:
            raise ConfigError(
                "batch_size, image_size, workers and world must be at least 1, seed and start at least 0, rank below "
                f"world; got {batch_size}, {image_size}, {workers}, {world}, {seed}, {start}, {rank}"
            )
        if crop not in ("random", "center"):
            raise ConfigError(f"crop must be random or center, got {crop!r}")
        if scale_to is not None and scale_to < image_size:
            raise ConfigError(f"scale_to {scale_to} is smaller than image_size {image_size}")
        self.source, self.batch_size, self.image_size = source, batch_size, image_size
        self.seed, self.position, self.rank, self.world = seed, start, rank, world
        self.flip, self.crop, self.workers = flip, crop, workers
        self.scale_to = image_size if scale_to is None else scale_to
        self.skipped: Counter[str] = Counter()
        self.drawn = 0
        self._orders: dict[int, np.ndarray] = {}
        self._pool: ThreadPoolExecutor | None = None

    def __iter__(self) -> Iterator[Batch]:
        """Batches from ``position`` on. A new iterator, or ``close()``, ends the one before it."""
        self.close()
        pool = self._pool = ThreadPoolExecutor(self.workers, thread_name_prefix="flowmo-data")
        waiting: deque[Future[Batch]] = deque()
        start = self.position
        try:
            while self._pool is pool:
                while len(waiting) < self.workers + 1:
                    waiting.append(pool.submit(self._batch, start))
                    start += self.batch_size * self.world
                batch = waiting.popleft().result()
                self._count(batch)
                yield batch
        finally:
            pool.shutdown(wait=False, cancel_futures=True)

    def close(self) -> None:
        """Stop the background threads; the loader can be iterated again."""
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)
            self._pool = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _count(self, batch: Batch) -> None:
        self.position = batch.position
        self.drawn += self.batch_size
        self.skipped.update(batch.skipped)
        broken = self.skipped.total()
        if broken > _MAX_BROKEN and broken > _MAX_BROKEN_SHARE * self.drawn:
            raise DataError(
                f"{broken} of {self.drawn} images could not be read, among them {', '.join(list(self.skipped)[:3])}; "
                f"check the data: {self.source.describe()}"
            )

    def _batch(self, start: int) -> Batch:
        positions = range(start + self.rank, start + self.batch_size * self.world, self.world)
        pixels: list[np.ndarray] = []
        indices: list[int] = []
        skipped: list[str] = []
        for position in positions:
            index, array = self._good(position, skipped)
            indices.append(index)
            pixels.append(array)
        images = torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2).contiguous()  # B 3 H W
        labels = [self.source.label(i) for i in indices]
        known = [label for label in labels if label is not None]
        return Batch(
            images,
            torch.tensor(known) if len(known) == len(labels) else None,
            indices,
            [self.source.name(i) for i in indices],
            skipped,
            start + self.batch_size * self.world,
        )

    def _good(self, position: int, skipped: list[str]) -> tuple[int, np.ndarray]:
        """The image at a position, or, as a pure function of the position too, the next good one after it."""
        for later in range(_MAX_BROKEN_IN_A_ROW):
            index = self._index(position + later)
            try:
                return index, self._pixels(index, position)
            except ImageError:
                # Those after the first are named when their own position comes.
                if later == 0:
                    skipped.append(self.source.name(index))
        raise DataError(
            f"{_MAX_BROKEN_IN_A_ROW} images in a row could not be read, among them {self.source.name(index)}; "
            f"check the data: {self.source.describe()}"
        )

    def _pixels(self, index: int, position: int) -> np.ndarray:
        random = self._generator(_AUGMENT, position)
        image = shorter_side_to(self.source[index], self.scale_to)
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
            # Two epochs meet in a batch; a new table, as other threads read the old one.
            self._orders = {e: o for e, o in self._orders.items() if abs(e - epoch) <= 1} | {epoch: order}
        return int(order[slot])

    def _generator(self, stream: int, number: int) -> np.random.Generator:
        return np.random.Generator(np.random.PCG64(np.random.SeedSequence([self.seed, stream, number])))
