"""A whole evaluation in one call: from names of models and data to the results in a folder (Section 4, Appendix B)."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

from ..codec import Rates
from ..comparison.peers.tokenizer import open_tokenizer
from ..data import open_split
from ..errors import ConfigError
from ..evaluation.measurable import Measurable
from ..evaluation.protocols import PROTOCOLS, get_protocol
from ..evaluation.results import Result, data_name
from ..evaluation.session import Session, flat, hold
from ..evaluation.several import Evaluation, evaluate_models, watch_run
from ..files import real_path
from ..metrics.networks import WeightFiles
from ..metrics.table import check_metrics, default_families, in_one_line
from ..progress import Progress
from ..training import World
from .loading import LoadOptions

BOTH = "both"
"""The word for all protocols."""


@dataclass(frozen=True)
class EvaluationRequest:
    """What is measured, and how; ``flowmo evaluate`` has a flag for each field."""

    data: str  # the pictures, as ``data.open_images`` takes them
    out: Path  # folder for the results
    models: Sequence[str] = ()  # as ``LoadOptions.load`` takes them
    peers: Sequence[str] = ()  # tokenizers of others, "NAME=FILE"
    peer_size: int = 256  # height and width of their images in pixels
    split: str | None = None  # of the data; None for validation
    limit: int | None = None  # pictures; None for all
    protocol: str = "standard"  # the name of one, or "both"
    metrics: Sequence[str] = field(default_factory=default_families)  # names of metrics or of families
    rates: Rates = field(default_factory=Rates)  # of models that code at any rate
    sampler: Mapping[str, Any] = field(default_factory=dict)  # settings that replace those stored with a model
    seed: int = 0  # of the noise
    load: LoadOptions = field(default_factory=LoadOptions)  # how models are loaded
    files: WeightFiles = field(default_factory=WeightFiles)  # of the networks that measure
    watch: bool = False  # whether the model is a training in progress, measured until it ends
    watch_limit: int | None = None  # models of it that are measured; None for all
    watch_every: float = 10.0  # seconds between looks for a new one
    force: bool = False  # whether results of other settings or code are overwritten
    command: str = ""  # that was typed

    def __post_init__(self) -> None:
        if not self.models and not self.peers:
            raise ConfigError("say what to measure: flowmo evaluate MODEL DATA, or --peers NAME=FILE")
        if self.peers and (self.load.precision != "fp32" or self.load.compile or self.rates.asked):
            raise ConfigError("--precision, --compile and rates are for FlowMo models; leave out these, or --peers")
        check_metrics(self.metrics, 1)


def evaluate_all(request: EvaluationRequest, progress: Progress | None = None) -> list[Result]:
    """Measure every model by every protocol at every rate, and return the results; empty on processes but the first.

    A call that was killed goes on where it was when it is made again; under torchrun the processes share the pictures.
    progress: told of pictures that are done or cannot be read.
    Raises ConfigError, WeightsError or ImageError for what cannot be measured.
    """
    r, progress = request, progress or Progress(0)
    with _processes(r) as world:
        source, split = open_split(r.data, r.split, "validation", r.limit)
        peers = {spec.partition("=")[0]: spec for spec in r.peers}
        options = replace(r.load, device=world.device)
        protocols = [get_protocol(name) for name in PROTOCOLS if r.protocol in (name, BOTH)]
        models = len(r.models) + len(r.peers)
        progress.expect(len(source) * len(protocols) * models * max(1, len(r.rates.asked)) // world.size)

        def load(name: str) -> Measurable:
            return open_tokenizer(peers[name], r.peer_size, world.device) if name in peers else options.load(name)

        bad = partial(progress.skip, once=True)  # models and protocols have the same ones
        about = (data_name(r.data), split, r.force, r.command)
        evaluation = Evaluation(
            Session(r.out, source, *about, world, bad, lambda count, _: progress.advance(count)),
            protocols,
            check_metrics(r.metrics, len(source)),
            r.files,
            r.sampler,
            r.seed,
            options.batch_size,
            progress.say,
            options.precision,
            options.compile,
            ready=lambda model: model if r.peers else options.ready(model),
            rates=r.rates.of,
        )
        if r.watch:
            return _watch(r, evaluation, progress.say)
        results = evaluate_models(evaluation, [*r.models, *peers], load)
        progress.expect(len(source))
        return results


@contextlib.contextmanager
def _processes(r: EvaluationRequest) -> Iterator[World]:
    """Give the processes that share the work; the first holds the folder meanwhile."""
    with World.join(str(r.load.device)) as world:
        if r.watch and (len(r.models) != 1 or r.peers or world.size > 1):
            raise ConfigError("--watch measures one run in one process: give one folder, no --peers, and no torchrun")
        with hold(r.out) if world.main else contextlib.nullcontext():
            yield world


def _watch(r: EvaluationRequest, evaluation: Evaluation, say: Callable[[str], None]) -> list[Result]:
    folder, results = Path(r.models[0]), []
    found = watch_run(evaluation, folder, str(r.load.device), r.watch_every)
    say(f"watching {folder}; Ctrl-C ends it, the same command goes on")
    try:
        for images, new in islice(found, r.watch_limit):
            results += new
            for result in new:
                say(f"{images:,} images, {result.protocol}: {in_one_line(flat(result))}")
    except KeyboardInterrupt:
        say("stopped")
    say(f"{r.out / real_path(folder).name}.jsonl has a line for each evaluation")
    return results
