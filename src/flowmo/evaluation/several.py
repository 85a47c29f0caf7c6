"""Several models, or those of a training in progress, are measured under several protocols (Section 4)."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ..errors import ConfigError
from ..files import real_path
from ..metrics.networks import Networks, WeightFiles, load_networks
from .evaluate import Settings
from .measurable import Measurable
from .protocols import Protocol
from .results import Result
from .session import Job, Session, evaluate, find_result, flat, prepare, stem_of
from .watch import WatchLog, run_length, snapshots

Load = Callable[[str], Measurable]


@dataclass(frozen=True)
class Evaluation:
    """What is measured, and how."""

    session: Session  # what all evaluations share
    protocols: Sequence[Protocol]  # each gives a result of its own
    metrics: Sequence[str]  # as metrics.table.check_metrics gives them
    files: WeightFiles = field(default_factory=WeightFiles)  # of networks' weights
    sampler: Mapping[str, Any] = field(default_factory=dict)  # settings that replace those stored with a model
    seed: int = 0  # of the noise
    batch_size: int = 16  # pictures at a time
    say: Callable[[str], None] = lambda line: None  # called with notes for a person
    precision: str = "fp32"  # as in ``Settings``
    compiled: bool = False  # likewise
    # Brings a model to this precision and compiles it, once it has been noted which one it is.
    ready: Callable[[Any], Measurable] = lambda model: model
    # Of a model's configuration, the bits a token to keep, each a result of its own; None is all (O12).
    rates: Callable[[Any], Sequence[int | None]] = lambda config: (None,)
    # Those loaded so far, by how Inception is given its pictures and the side of a picture in pixels.
    networks: dict[tuple[str, int], Networks] = field(default_factory=dict)

    def jobs(self, model: Measurable, name: str) -> list[Job]:
        """Return the work on one model, by each protocol at each rate."""
        rates = self.rates(model.config)
        return [self.job(model, name, protocol, bits) for protocol in self.protocols for bits in rates]

    def job(self, model: Measurable, name: str, protocol: Protocol, bits_per_token: int | None = None) -> Job:
        """Return the work on one model by one protocol, with networks that are loaded once for a size of images."""
        side = model.config.image_size
        key = (protocol.inception, side)
        if key not in self.networks:
            self.networks[key] = load_networks(self.metrics, protocol.inception, side, model.device, self.files)
            if not self.session.processes.rank and len(self.networks) == 1:
                for note in self.networks[key].notes():
                    self.say(note)
        own = model.config.sampler
        sampler = None if own is None else replace(own, **self.sampler)
        how = (self.precision, self.compiled, bits_per_token)
        settings = Settings(protocol, sampler, self.seed, self.batch_size, *how)
        return prepare(model, name, settings, self.networks[key])

    def tell_known(self, job: Job) -> None:
        """Say that a result is there already, and count its pictures as done."""
        self.say(f"{job.stem}: measured already")
        self.session.on_done(len(self.session.source), False)

    def tell_too_few(self, job: Job, result: Result | None) -> None:
        """Say which metrics a result lacks since its pictures are too few."""
        lacking = [name for name in (result.content["left_out"] if result else {}) if name not in job.networks.left_out]
        if result and lacking:
            are = "are" if len(lacking) > 1 else "is"
            self.say(f"note: {', '.join(lacking)} {are} left out: too few pictures ({result.data.count})")


def evaluate_models(evaluation: Evaluation, names: Sequence[str], load: Load) -> list[Result]:
    """Return the results of all models under all protocols.

    Everything is loaded and checked once before the first picture is measured.
    Raises ConfigError for models whose results would have the same name.
    """
    stems = [stem_of(name, evaluation.protocols[0]) for name in names]
    if len(set(stems)) < len(stems):
        raise ConfigError("two of the models would have results of the same name; measure them one by one, by --out")
    plans: list[tuple[str, list[tuple[Job, Result | None]]]] = []
    for name in names:
        model = load(name)
        plans.append((name, [(job, find_result(evaluation.session, job)) for job in evaluation.jobs(model, name)]))
    results = []
    for name, plan in plans:
        if any(known is None for _, known in plan):
            model = evaluation.ready(load(name) if len(names) > 1 else model)
        for job, known in plan:
            if known is not None:
                evaluation.tell_known(job)
            results.append(known or evaluate(model, evaluation.session, job))
            evaluation.tell_too_few(job, results[-1])
    return [result for result in results if result is not None]


def watch_run(evaluation: Evaluation, folder: Path, device: str, every: float) -> Iterator[tuple[int, list[Result]]]:
    """Return an iterator over the new models of a run until its training ends.

    It gives for each new model.safetensors the images that the model has seen, and its results.
    Each result is a line of ``RUN.jsonl`` in the session's folder, too.
    every: seconds after which it is seen whether there is a new model.
    Raises ConfigError for a folder that is no run's.
    """
    run_length(folder)  # raises where it is none
    return _watch(evaluation, folder, device, every)


def _watch(evaluation: Evaluation, folder: Path, device: str, every: float) -> Iterator[tuple[int, list[Result]]]:
    protocols = evaluation.protocols
    log = WatchLog(evaluation.session.folder / f"{real_path(folder).name}.jsonl")
    for snapshot in snapshots(folder, device, lambda sha: log.known(sha, len(protocols)), every):
        name = f"{real_path(folder).name}-{snapshot.images:010d}"
        results, lines = [], []
        jobs = list(evaluation.jobs(snapshot.model, name))
        model = evaluation.ready(snapshot.model)
        for job in jobs:
            result = find_result(evaluation.session, job)
            if result is not None:
                evaluation.tell_known(job)
            result = result or evaluate(model, evaluation.session, job)
            assert result is not None
            line = {"images": snapshot.images, "sha256": snapshot.sha256, "protocol": job.settings.protocol.name}
            lines.append(line | {"count": result.data.count} | flat(result) | {"time": round(time.time())})
            results.append(result)
        for line in lines:  # all at once: a model with a line was measured at all rates
            log.add(line)
        yield snapshot.images, results
