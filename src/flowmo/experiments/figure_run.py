"""A figure of the paper is measured by some models on some images, and ends as a plot and a result on disk."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from ..config import SamplerConfig
from ..data import read_first
from ..errors import ConfigError, ImageError
from ..evaluation.protocols import STANDARD
from ..evaluation.results import Result, data_name, describe_data, describe_model, labels, write_result
from ..files import check_targets
from ..metrics.networks import WeightFiles
from ..provenance import machine
from ..text import sampler_in_words
from ..tokenizer import FlowMo
from ..viewing.plots import write_plot
from .measures import load_measure
from .sampling import Measure

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class FigureRequest:
    """What a figure is measured on, and where it goes; ``flowmo figure`` has a flag for each field."""

    kind: str  # of the result, such as "figure variance"
    name: str  # of its files, NAME.json and NAME.png
    models: Sequence[str]  # as ``flowmo.load`` takes them
    data: str  # the images, as ``data.open_split`` takes them
    out: Path  # folder of the files
    split: str | None = None  # part of the data
    count: int = 32  # images to measure
    skip: int = 0  # images before them that are left out
    seed: int = 0  # image i is sampled from seed + i
    sampler: Mapping[str, Any] | None = None  # settings in place of each model's own; None where nothing is sampled
    batch_size: int = 16  # images at a time
    files: WeightFiles = field(default_factory=WeightFiles)  # of the networks that measure
    plotted: bool = True  # whether there is a plot
    most: int = 1  # models at once
    force: bool = False  # whether files that exist are overwritten
    command: str = ""  # that was typed

    @property
    def result(self) -> Path:
        """Return the file of the result."""
        return self.out / f"{self.name}.json"

    @property
    def plot(self) -> Path | None:
        """Return the file of the plot."""
        return self.out / f"{self.name}.png" if self.plotted else None


class Drawn(NamedTuple):
    """What a figure shows."""

    content: dict[str, Any]  # the numbers, as JSON data
    plot: Figure | None = None  # their drawing
    words: str = ""  # what there is to say of them
    table: tuple[list[str], list[list[str]]] | None = None  # (header, rows) of the numbers


class FigureRun:
    """The models and images of a figure, and how its result is written."""

    def __init__(
        self,
        request: FigureRequest,
        load: Callable[[Sequence[str]], list[FlowMo]],
        on_bad: Callable[[str, ImageError], None] = lambda name, error: None,
    ) -> None:
        """Check the files that are to be written; load models by ``load``, then images.

        on_bad: called with each image that cannot be read, and why.
        Raises ConfigError for files that exist, and for models that do not compare.
        """
        r = self.request = request
        self.started, self.bad = time.perf_counter(), list[str]()
        check_targets([r.plot, r.result] if r.plot else [r.result], force=r.force)
        if len(r.models) > r.most:
            raise ConfigError(f"--model takes at most {r.most} models, got {len(r.models)}")
        self.models, self.labels = load(r.models), labels(r.models)
        sizes = sorted({model.config.image_size for model in self.models})
        if len(sizes) > 1:
            raise ConfigError(f"the models code pictures of {sizes[0]} and {sizes[-1]} pixels, which do not compare")
        self.samplers: list[SamplerConfig] = (
            [] if r.sampler is None else [replace(model.config.sampler, **r.sampler) for model in self.models]
        )

        def skip(name: str, error: ImageError) -> None:
            self.bad.append(str(error))
            on_bad(name, error)

        self.first = read_first(r.data, r.split, (sizes[0], sizes[0]), skip, r.count, r.skip)
        self.images = self.first.images
        self.seeds = range(r.seed, r.seed + len(self.images))

    def measure(self, name: str) -> Measure:
        """Return :func:`load_measure`'s on the device, with the files of weights that there are."""
        files = self.request.files
        file = {"lpips": files.lpips_alex, "rfid": files.inception, "fd_efflite0": files.classifier}[name]
        return load_measure(name, self.images, self.models[0].device, file, self.request.batch_size)

    def note(self) -> str:
        """Return what a plot says of its models, their samplers and images."""
        lines = [f"{label}: {sampler_in_words(s)}" for label, s in zip(self.labels, self.samplers, strict=True)]
        return "\n".join([*lines, self.count_in_words()])

    def count_in_words(self) -> str:
        """Return how many images there are, and from which noise they are sampled."""
        r = self.request
        after = f" after the first {r.skip:,}" if r.skip else ""
        return f"{len(self.images):,} pictures{after}, {STANDARD.noise_in_words(r.seed)}"

    def write(self, drawn: Drawn, protocol: str = STANDARD.name, seed: str = "", seconds: float | None = None) -> None:
        """Write the plot and the result.

        seed: how noise follows from it, in words. seconds: of work, where it is not the time since the beginning.
        """
        r = self.request
        used: Sequence[SamplerConfig | None] = self.samplers or [None] * len(self.models)
        result = Result(
            kind=r.kind,
            protocol=protocol,
            data=describe_data(data_name(r.data), self.images, self.first.split, self.bad),
            models=tuple(describe_model(*one) for one in zip(self.models, r.models, used, strict=True)),
            seed=seed or STANDARD.noise_in_words(r.seed),
            content=drawn.content,
            seconds=time.perf_counter() - self.started if seconds is None else seconds,
            command=r.command,
            machine=machine(self.models[0].device),
        )
        if r.plot is not None and drawn.plot is not None:
            write_plot(r.plot, drawn.plot)
        write_result(r.result, result)
