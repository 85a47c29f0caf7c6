"""Training batches in an order that depends on (seed, position) alone, so a run resumes exactly where it stopped."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Literal, Self

import numpy as np

from ..errors import ConfigError, DataError
from .batch import Batch
from .batch_sampler import BatchSampler
from .sources import ImageSource
from .workers import BatchStream

_MAX_BROKEN_SHARE, _MAX_BROKEN = 0.01, 10


class BatchLoader:
    """Batches forever: each epoch is a fresh permutation of the source, decoded ahead by ``workers`` processes.

    Position p (images drawn so far, over all ranks) fixes the image and its crop and flip. Rank r of ``world`` takes
    positions r, r + world, ...; ``position`` says where the next batch starts. A broken image is replaced by the next
    good one in the order, and named in the ``skipped`` of the first batch that wanted it, and in that of the loader;
    DataError once more than 10 images, and more than 1 % of the different ones that this rank drew, were broken, each
    counted once however often it is drawn. batch_size: of this rank. scale_to: the shorter side before the crop,
    ``image_size`` by default (C1); a larger one gives crops at a finer scale. workers: 0 decodes in this process, when
    a batch is asked for. Use it as a context manager, or call ``close()``.
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
        if min(start, workers) < 0:
            raise ConfigError(f"start and workers must be at least 0, got {start} and {workers}")
        self.sampler = BatchSampler(
            source, batch_size, image_size, seed, flip=flip, crop=crop, rank=rank, world=world, scale_to=scale_to
        )
        self.position, self.workers = start, workers
        self.skipped: list[str] = []
        self._drawn, self._broken = np.zeros(len(source), bool), np.zeros(len(source), bool)
        self._stream: BatchStream | None = None

    def __iter__(self) -> Iterator[Batch]:
        """Yield the batches from ``position`` on. A new iterator, or ``close()``, ends the one before it."""
        self.close()
        stream = self._stream = BatchStream(self.sampler, self.position, self.workers)
        try:
            while self._stream is stream:
                batch = next(stream)
                yield self._counted(batch)
        finally:
            stream.close()

    def close(self) -> None:
        """End the worker processes; the loader can be iterated again."""
        if self._stream is not None:
            self._stream.close()
            self._stream = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _counted(self, batch: Batch) -> Batch:
        """Return the batch with those of its broken images that are new."""
        self.position = batch.position
        new = [i for i in dict.fromkeys(batch.broken) if not self._broken[i]]
        batch = replace(batch, broken=new, skipped=[self.sampler.source.name(i) for i in new])
        self.skipped += batch.skipped
        self._broken[new] = True
        self._drawn[batch.indices] = True
        broken, drawn = int(self._broken.sum()), int((self._drawn | self._broken).sum())
        if new and broken > _MAX_BROKEN and broken > _MAX_BROKEN_SHARE * drawn:
            raise DataError(
                f"{broken} of {drawn} images could not be read, among them {', '.join(self.skipped[:3])}; "
                f"check the data: {self.sampler.source.describe()}"
            )
        return batch
