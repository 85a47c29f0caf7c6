"""What all figures share: their flags, and a run from the models and pictures to the plot and the result on disk."""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ...config import SamplerConfig
from ...data import read_first
from ...errors import ConfigError
from ...evaluation.protocols import STANDARD
from ...evaluation.results import Result, data_name, describe_data, describe_model, labels, write_result
from ...experiments.measures import load_measure
from ...experiments.sampling import Measure, sampler_in_words
from ...files import check_targets
from ...provenance import machine
from ...viewing.plots import write_plot
from .. import common, models
from ..fields import add_flag
from ..printing import Progress
from ..values import positive, seed

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SEED_HELP = "starting noise: picture i is sampled from seed N + i"


def add_data_arguments(parser: argparse.ArgumentParser, count: int) -> None:
    """Add the pictures to measure: DATA, --split, --count and --skip."""
    common.add_data_arguments(parser, count="--count", default=count, help="pictures to measure")
    what = "leave the first N pictures out, so that others choose than those that measure later"
    add_flag(parser, "--skip", seed, what, 0)


def add_show_argument(parser: argparse.ArgumentParser) -> None:
    """Add ``--show``, how many pictures the plot has."""
    add_flag(parser, "--show", positive, "pictures on the plot, the first", 8)


class Run:
    """A measurement on some pictures by the models that are asked for, which ends in a result on disk."""

    def __init__(
        self, arguments: argparse.Namespace, kind: str, name: str, plotted: bool = True, most: int = 1
    ) -> None:
        """Check the targets NAME.json and, where it is ``plotted``, NAME.png; load models, then pictures.

        kind: of the result. most: models at once.
        Raises ConfigError for files that exist, and for models that do not compare.
        """
        a = self.arguments = arguments
        self.kind, self.started, self.result = kind, time.perf_counter(), a.out / f"{name}.json"
        self.plot = a.out / f"{name}.png" if plotted else None
        check_targets([self.plot, self.result] if self.plot else [self.result], force=a.force)
        self.names = a.models if "models" in a else [a.model]
        if len(self.names) > most:
            raise ConfigError(f"--models takes at most {most} models, got {len(self.names)}")
        self.models = models.load_models(a, self.names)
        self.labels = labels(self.names)
        sizes = sorted({model.config.image_size for model in self.models})
        if len(sizes) > 1:
            raise ConfigError(f"the models code pictures of {sizes[0]} and {sizes[-1]} pixels, which do not compare")
        self.reading = Progress(a.count)
        self.pictures = read_first(a.data, a.split, (sizes[0], sizes[0]), self.reading.skip, a.count, a.skip)
        self.reading.expect(len(self.pictures.images) + self.reading.bad_count)
        self.code = self.reading.finish()
        self.images = self.pictures.images
        self.seeds = range(a.seed, a.seed + len(self.images))

    def measure(self, name: str) -> Measure:
        """Return :func:`load_measure`'s on the device, with the files of weights that the arguments name."""
        a, files = self.arguments, {"lpips": "lpips", "rfid": "inception", "fd_efflite0": "classifier"}
        device = self.models[0].device
        return load_measure(name, self.images, device, getattr(a, files[name]), a.batch_size)

    def samplers(self) -> list[SamplerConfig]:
        """Return the sampler of each model, with what the arguments say."""
        return [models.sampler_of(self.arguments, model) for model in self.models]

    def note(self) -> str:
        """Return what a plot says of its models and pictures."""
        lines = [f"{label}: {sampler_in_words(s)}" for label, s in zip(self.labels, self.samplers(), strict=True)]
        return "\n".join([*lines, self.count_in_words()])

    def count_in_words(self) -> str:
        """Return how many pictures there are, and from which noise they are sampled."""
        skip = self.arguments.skip
        after = f" after the first {skip:,}" if skip else ""
        return f"{len(self.images):,} pictures{after}, {STANDARD.noise_in_words(self.arguments.seed)}"

    def finish(
        self,
        content: dict[str, Any],
        figure: Figure | None = None,
        samplers: Sequence[SamplerConfig] | None = None,
        protocol: str = STANDARD.name,
        seed: str = "",
        seconds: float | None = None,
    ) -> int:
        """Write the plot and the JSON, and say where they are, or print the JSON with --json; return the exit code.

        samplers: of the models; None where they sampled nothing, or each row has its own.
        """
        a, skipped = self.arguments, [bad["reason"] for bad in self.reading.bad]
        used: Sequence[SamplerConfig | None] = samplers or [None] * len(self.models)
        records = [describe_model(*one) for one in zip(self.models, self.names, used, strict=True)]
        result = Result(
            kind=self.kind,
            protocol=protocol,
            data=describe_data(data_name(a.data), self.images, self.pictures.split, skipped),
            models=tuple(records),
            seed=seed or STANDARD.noise_in_words(a.seed),
            content=content,
            seconds=time.perf_counter() - self.started if seconds is None else seconds,
            command=a.command_line,
            machine=machine(self.models[0].device),
        )
        if figure is not None and self.plot is not None:
            write_plot(self.plot, figure)
        write_result(self.result, result)
        if a.json:
            print(self.result.read_text(), end="")
        elif self.plot is not None:
            print(f"\n{self.plot.name} and {self.result.name} are in {a.out}")
        return self.code


def figure_run(arguments: argparse.Namespace, most: int = 1) -> Run:
    """Return the run of the figure that the arguments name."""
    return Run(arguments, f"figure {arguments.figure}", arguments.figure, most=most)
