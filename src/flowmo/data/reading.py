"""Images of a data set as tensors of one size: those of some places, or batches spread over all of it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import NamedTuple

import torch
from torch import Tensor

from ..errors import DataError, ImageError
from ..image_utils.crops import to_tensor
from ..image_utils.fit import fit_image
from ..image_utils.scale import to_uint8
from .opening import open_split
from .sources import ImageSource

OnBad = Callable[[str, ImageError], None]


class Images(NamedTuple):
    """The images that were read from a data set, as one tensor, and what they are."""

    images: Tensor  # N 3 H W, float32 in [-1, 1] or uint8
    names: list[str]  # one an image, in the data
    places: list[int]  # one an image, in the data
    split: str | None = None  # the part of the data that they are from, if any


def each_image(
    source: ImageSource, size: tuple[int, int], places: Iterable[int], on_bad: OnBad, eight_bits: bool = False
) -> Iterator[tuple[int, Tensor]]:
    """Yield (place, image) of those at some places that can be read, cut to ``size`` = (height, width).

    An image is cut as in the paper (C1): 3 H W, float32 in [-1, 1], or uint8 with ``eight_bits``. on_bad: called with
    the name of each other one.
    """
    for place in places:
        try:
            image = to_tensor(fit_image(source[place], *size))
        except ImageError as error:
            on_bad(source.name(place), error)
            continue
        yield place, to_uint8(image) if eight_bits else image


def read_images(
    source: ImageSource,
    size: tuple[int, int],
    places: Iterable[int],
    on_bad: OnBad,
    most: int | None = None,
    eight_bits: bool = False,
) -> Images:
    """Return the images of :func:`each_image` in one tensor.

    most: stop after so many. Raises DataError where none can be read.
    """
    found = list(islice(each_image(source, size, places, on_bad, eight_bits), most))
    if not found:
        raise DataError(f"none of the pictures can be read: {source.describe()}")
    kept = [place for place, _ in found]
    return Images(torch.stack([image for _, image in found]), [source.name(place) for place in kept], kept)


def read_first(
    path: str,
    split: str | None,
    size: tuple[int, int],
    on_bad: OnBad,
    count: int | None = None,
    skip: int = 0,
    eight_bits: bool = False,
) -> Images:
    """Return ``count`` images of a data set after the first ``skip``, or all of them.

    They are of the split asked for, else of its validation part, or of all data where there is none. See
    :func:`read_images`.
    """
    source, split = open_split(path, split, "validation", None if count is None else skip + count)
    return read_images(source, size, range(skip, len(source)), on_bad, eight_bits=eight_bits)._replace(split=split)


def read_several(paths: Iterable[str], split: str | None, size: tuple[int, int], count: int, on_bad: OnBad) -> Images:
    """Return the first ``count`` images of several data sets, uint8, whose places are those among all of them.

    split: of each that has parts; None for its validation part. See :func:`read_images`.
    Raises DataError where none can be read.
    """
    images: list[Tensor] = []
    names: list[str] = []
    places: list[int] = []
    first = 0
    for path in paths:
        source, _ = open_split(path, split, "validation", count)
        here = min(len(source), count - first)
        for place, image in each_image(source, size, range(here), on_bad, eight_bits=True):
            images.append(image)
            names.append(source.name(place))
            places.append(first + place)
        first += here
    if not images:
        raise DataError("none of the pictures can be read")
    return Images(torch.stack(images), names, places)


class SpreadImages:
    """Batches of square centre crops spread over a data set, the same at every call; broken images are left out.

    advance: gets the number of images that were read since it was called last.
    bad: names of those, with the reason. used: images of the last call.
    """

    def __init__(
        self,
        source: ImageSource,
        side: int,
        count: int,
        advance: Callable[[int], None] = lambda count: None,
        batch_size: int = 32,
    ) -> None:
        self.source, self.side, self.advance, self.batch_size = source, side, advance, batch_size
        self.places = range(0, len(source), max(1, len(source) // count))[:count]
        self.bad: dict[str, str] = {}
        self.used = 0

    def __call__(self) -> Iterator[Tensor]:
        """Yield float32 B 3 side side in [-1, 1]. Raises DataError where no image can be read."""
        self.used = 0
        images = each_image(self.source, (self.side, self.side), self._places(), self._on_bad)
        while batch := [image for _, image in islice(images, self.batch_size)]:
            self.used += len(batch)
            yield torch.stack(batch)
        if not self.used:
            raise DataError("none of the images can be read")

    def _places(self) -> Iterator[int]:
        for place in self.places:
            self.advance(1)
            yield place

    def _on_bad(self, name: str, error: ImageError) -> None:
        self.bad[name] = str(error)
