"""One model is measured under one protocol on one data set, up to the result on disk (Section 4, Appendix B)."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..config import to_dict
from ..data import ImageSource
from ..errors import ConfigError, ImageError
from ..files import cache_folder, check_writable, only_one
from ..metrics.networks import Networks
from ..metrics.table import Measurements, compute
from ..provenance import code_version, machine
from .evaluate import Alone, Measured, Processes, Settings, measure
from .feature_cache import FeatureCache, feature_caches
from .measurable import Measurable
from .protocols import Protocol
from .results import (
    DataRecord,
    ModelRecord,
    Result,
    describe_model,
    list_checksum,
    model_stem,
    read_result,
    write_result,
)
from .summary import summarize, write_table

PARTIAL = ".partial"


@dataclass(frozen=True)
class Session:
    """What the evaluations of one command share."""

    folder: Path  # for results; while one is made, its rows are below ``.partial``
    source: ImageSource  # the pictures
    data: str  # what results call them
    split: str | None = None  # of the data set; None where it has none
    force: bool = False  # whether results of other weights or settings are overwritten
    command: str = ""  # the command line
    processes: Processes = field(default_factory=Alone)  # those that share the work
    on_bad: Callable[[str, ImageError], None] = lambda name, error: None  # see ``evaluate.measure``
    on_done: Callable[[int, bool], None] = lambda count, measured: None  # likewise


@dataclass(frozen=True)
class Job:
    """One model to be measured under one protocol."""

    stem: str  # of the names of its files
    record: ModelRecord  # what its result says of the model
    settings: Settings  # what its numbers depend on
    networks: Networks  # what measures


@contextmanager
def hold(folder: Path) -> Iterator[None]:
    """Hold ``folder`` for this process, and leave nothing but unfinished rows behind.

    Raises ConfigError where another process evaluates into it.
    """
    check_writable(folder)
    lock = folder / PARTIAL / "lock"
    with only_one(lock) as alone:
        if not alone:
            raise ConfigError(f"another evaluation is at work in {folder}; wait for it, or give another --out")
        try:
            yield
        finally:
            lock.unlink(missing_ok=True)
            with suppress(OSError):  # there are unfinished rows, or results
                lock.parent.rmdir()
                folder.rmdir()


def prepare(model: Measurable, name: str, settings: Settings, networks: Networks) -> Job:
    """Return a job whose files are named by model and protocol."""
    stem, bits = stem_of(name, settings.protocol), settings.bits_per_token
    stem = stem if bits is None else f"{stem}-{bits}-bits"
    return Job(stem, describe_model(model, name, settings.sampler), settings, networks)


def stem_of(name: str, protocol: Protocol) -> str:
    """Return what the files of a model's result are called, without their endings."""
    return f"{model_stem(name)}-{protocol.name}"


def find_result(session: Session, job: Job) -> Result | None:
    """Return the result of this very job where it is there already; None where it is to be made.

    Raises ConfigError where its name is taken by another one, unless ``session.force``.
    """
    path = session.folder / f"{job.stem}.json"
    if not path.exists() or session.force:
        return None
    result = read_result(path)
    if result.content.get("key") != job_key(session, job):
        raise ConfigError(
            f"{path} is there already, of other weights, pictures, settings or code; give another --out, or --force to "
            "overwrite"
        )
    return result


def job_key(session: Session, job: Job) -> str:
    """Return a digest of all that the rows depend on beside pixels, which each row has its own checksum of."""
    source, names = session.source, hashlib.sha256()
    for place in range(len(source)):
        names.update(source.name(place).encode(errors="surrogatepass") + b"\n")
    key: dict[str, Any] = {
        "model": [job.record.sha256, to_dict(job.settings.sampler)],
        "protocol": job.settings.protocol.conventions(job.settings.seed),
        "metrics": job.networks.metrics,
        "networks": [[network.name, network.checksum] for network in job.networks.features.values()],
        "data": [session.split, len(source), names.hexdigest()],
        "code": code_version(),
    }
    key |= how_it_ran(job.settings)
    if job.settings.bits_per_token is not None:  # keys of all bits stay what they were
        key["bits_per_token"] = job.settings.bits_per_token
    return hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:16]


def how_it_ran(settings: Settings) -> dict[str, Any]:
    """Return what a result says of precision and compilation, which is nothing for float32 as it is."""
    found: dict[str, Any] = {} if settings.precision == "fp32" else {"precision": settings.precision}
    return found | ({"compiled": True} if settings.compiled else {})


def evaluate(model: Measurable, session: Session, job: Job) -> Result | None:
    """Measure, write ``<stem>.json`` and the table of pictures ``<stem>.csv``, and return the result.

    On other processes than the first it returns None.
    A call that was killed goes on where it was when it is made again.
    """
    key, processes = job_key(session, job), session.processes
    rows = FeatureCache(session.folder / PARTIAL / f"{job.stem}-{key}")
    originals = feature_caches(job.networks, cache_folder() / "features")
    images = measure(
        model,
        session.source,
        job.settings,
        job.networks,
        rows=rows,
        originals=originals,
        processes=processes,
        on_bad=session.on_bad,
        on_done=session.on_done,
    )
    if processes.rank:
        return None
    for store in (rows, *originals.values()):
        store.refresh()
    measured = images.measured
    table = rows.get([image.key for image in measured])
    features = {
        space: store.get([image.checksum for image in measured])["features"] for space, store in originals.items()
    }
    content = summarize(table, features, measured, job.settings, job.networks, model.config)
    result = Result(
        kind="evaluation",
        protocol=job.settings.protocol.name,
        data=_data(session, measured, images.skipped, model.config.image_size),
        models=(job.record,),
        seed=job.settings.protocol.noise_in_words(job.settings.seed),
        content={"key": key, "pictures": f"{job.stem}.csv"} | how_it_ran(job.settings) | content,
        seconds=float(table["seconds"].sum()),
        command=session.command,
        machine=machine(model.device),
    )
    names = [session.source.name(image.place) for image in measured]
    write_table(session.folder / f"{job.stem}.csv", table, measured, names)
    write_result(session.folder / f"{job.stem}.json", result)
    rows.remove()
    return read_result(session.folder / f"{job.stem}.json")


def _data(session: Session, measured: list[Measured], skipped: list[str], side: int) -> DataRecord:
    checksum = list_checksum([image.checksum for image in measured])
    return DataRecord(session.data, checksum, len(measured), (side, side), session.split, tuple(skipped))


def flat(result: Result) -> dict[str, float]:
    """Return the numbers of an evaluation in one row, for tables and for a line of a log."""
    rate = result.content.get("rate") or {}
    row = {name: rate[name] for name in ("bits_per_pixel", "payload_bytes") if rate} | result.content["metrics"]
    return row | compute(["code"], Measurements({}, {}, code=result.content.get("code")))[0]
