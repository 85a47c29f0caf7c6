"""Pictures in batches of the model's size, decoded ahead by threads; only a few batches are ever in memory."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import torch

from ..errors import ImageError
from ..image_utils.crops import to_pixels
from ..image_utils.fit import Fit, fit_image, whole_size
from ..image_utils.scale import stacked
from .inputs import open_image


@dataclass(frozen=True)
class InputBatch:
    """A batch of pictures of the model's size, with their places in the list of paths."""

    images: torch.Tensor  # uint8 B 3 H W
    indices: list[int]  # places in the list of paths
    original_sizes: list[tuple[int, int]]  # (height, width)


def image_batches(
    paths: Sequence[Path],
    size: tuple[int, int] | None,
    fit: Fit,
    batch_size: int,
    on_bad: Callable[[Path, ImageError], None],
    workers: int | None = None,
    multiple: int = 1,
) -> Iterator[InputBatch]:
    """Yield every picture that can be read, in order, fitted to ``size`` = (height, width).

    Every other goes to ``on_bad``, in order too. size: None leaves each picture unscaled, with its edges repeated up to
    a ``multiple``; a batch then holds pictures of one size. A batch with bad pictures is smaller than ``batch_size``;
    one without good ones is left out."""

    def load(path: Path) -> tuple[torch.Tensor, tuple[int, int]] | ImageError:
        try:
            image = open_image(path)
            if size is None:
                own = whole_size((image.image.height, image.image.width), multiple)
                return to_pixels(fit_image(image.image, *own, "whole")), image.original_size
            return to_pixels(fit_image(image.image, *size, fit)), image.original_size
        except ImageError as error:
            return error

    with ThreadPoolExecutor(workers or min(8, os.cpu_count() or 1)) as pool:
        pending: deque[tuple[int, list[Future]]] = deque()
        for start in range(0, len(paths), batch_size):
            pending.append((start, [pool.submit(load, path) for path in paths[start : start + batch_size]]))
            if len(pending) > 1:  # one batch is decoded while the model has the one before
                yield from _collect(*pending.popleft(), paths, on_bad)
        while pending:
            yield from _collect(*pending.popleft(), paths, on_bad)


def _collect(
    start: int, futures: list[Future], paths: Sequence[Path], on_bad: Callable[[Path, ImageError], None]
) -> Iterator[InputBatch]:
    images: list[torch.Tensor] = []
    indices: list[int] = []
    sizes: list[tuple[int, int]] = []
    for index, future in enumerate(futures, start):
        result = future.result()
        if isinstance(result, ImageError):
            on_bad(paths[index], result)
        else:
            if images and images[0].shape != result[0].shape:
                yield InputBatch(stacked(images), indices, sizes)
                images, indices, sizes = [], [], []
            images.append(result[0])
            indices.append(index)
            sizes.append(result[1])
    if images:
        yield InputBatch(stacked(images), indices, sizes)
