"""The images that a run trains on, and those held out from it to validate on (Section 4.1)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from ...data import FileSource, ImageSource, open_split, read_images
from ...errors import ConfigError
from ...files import check_writable, real_path


@dataclass(frozen=True)
class ImageData:
    """Where the images of a run are, as ``data.open_split`` takes them."""

    data: str  # those to train on
    split: str | None = None  # the part of them; None for "train", where there are several
    validation: str | None = None  # those to validate on; None for the same

    def training_source(self, out: Path) -> ImageSource:
        """Return the images to train on.

        Raises ConfigError where a run cannot write into ``out``, or where the sample images that it writes there would
        be among them when it goes on.
        """
        check_writable(out)
        source, data = open_split(self.data, self.split, "train")[0], Path(self.data)
        if isinstance(source, FileSource) and real_path(out).is_relative_to(real_path(data)):
            raise ConfigError(
                f"{out} lies inside the data {data}, so the run would train on its own sample pictures; give a folder "
                "outside the data"
            )
        return source

    def most(self, count: int, source: ImageSource) -> int:
        """Return how many images validate where ``count`` are asked for: of the training images, no more than all."""
        return count if self.validation else min(count, len(source))

    def held_out(self, side: int, count: int, say: Callable[[str], None], skip: int = 0) -> Tensor:
        """Return ``count`` images spread over the held-out data after the first ``skip``, or as many as there are.

        They are B 3 side side in [-1, 1]. say: told of each that cannot be read.
        """
        chosen = (self.validation, None, "validation") if self.validation else (self.data, self.split, "train")
        source, _ = open_split(*chosen)
        left = len(source) - skip
        step = max(1, left // count)
        places = range(skip, skip + min(left, step * count), step)

        def left_out(name: str, error: Exception) -> None:
            say(f"left out of validation: {error}")

        return read_images(source, (side, side), places, left_out).images
