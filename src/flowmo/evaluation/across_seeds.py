"""What ``flowmo evaluate`` wrote of several models over several noise seeds is put side by side (Table 5).

Numbers of single pictures are averaged over the seeds, then compared picture by picture with those of the first model;
what is of all pictures together, such as rFID, is given for each seed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

from ..config import to_dict
from ..errors import DataError
from ..metrics.bootstrap import paired_bootstrap
from ..metrics.table import each_image, of_all_images
from .results import Result, read_result
from .summary import read_table


class Measured(NamedTuple):
    """One evaluation as it was written."""

    result: Result  # what ``MODEL-PROTOCOL.json`` says
    images: list[str]  # checksums of its pictures, in order
    table: dict[str, np.ndarray]  # numbers of the pictures, (N,) by column


def read_evaluation(path: Path) -> Measured:
    """Read ``MODEL-PROTOCOL.json`` and the table beside it. Raises DataError where one of them cannot be read."""
    return Measured(read_result(path), *read_table(path.with_suffix(".csv")))


def compare_seeds(
    evaluations: Mapping[str, Sequence[Path]], same: Literal["sampler", "fingerprint"] = "sampler"
) -> dict[str, Any]:
    """Return the numbers of several models, and their differences from the first, as plain data.

    evaluations: by what a model is called, its results, one a seed.
    same: what all must have in common beside pictures, protocol and seeds. It is the sampler, or, to compare decoders
    and samplers, the fingerprint and hence the tokens.
    ``metric_seeds`` says at which seeds every model has a number.
    ``models`` has of each its ``metrics`` (mean over those seeds), ``by_seed``, and ``difference`` from the first.
    A difference is mean, low and high of a paired bootstrap interval of 95 % over the pictures; a number that is of no
    single picture has its difference ``by_seed``.
    Raises DataError where something is not the same.
    """
    read = {name: [read_evaluation(path) for path in paths] for name, paths in evaluations.items()}
    first = next(iter(read.values()))
    if not first:
        raise DataError("there are no evaluations to compare")
    for name, measured in read.items():
        _check_same(name, measured, first, same)
    groups = read.values()
    places = {
        name: [k for k in range(len(first)) if all(name in group[k].result.content["metrics"] for group in groups)]
        for name in (*each_image(), *of_all_images())
    }
    places = {name: where for name, where in places.items() if where}
    return {
        "protocol": first[0].result.protocol,
        "data": to_dict(first[0].result.data),
        "seeds": [measured.result.seed for measured in first],
        "metric_seeds": {name: [first[k].result.seed for k in where] for name, where in places.items()},
        "models": {name: _of_model(measured, first, places) for name, measured in read.items()},
    }


def _of_model(measured: list[Measured], first: list[Measured], places: Mapping[str, list[int]]) -> dict[str, Any]:
    record = measured[0].result.models[0]
    by_seed = {name: [measured[k].result.content["metrics"][name] for k in where] for name, where in places.items()}
    difference: dict[str, Any] = {}
    for name, where in places.items():
        if name in each_image():
            found = paired_bootstrap(
                *(np.mean([group[k].table[name] for k in where], 0) for group in (measured, first))
            )
            difference[name] = {"mean": found.mean, "low": found.low, "high": found.high}
        else:
            others = [first[k].result.content["metrics"][name] for k in where]
            difference[name] = {"by_seed": [a - b for a, b in zip(by_seed[name], others, strict=True)]}
    return {
        "name": record.name,
        "sha256": record.sha256,
        "fingerprint": record.fingerprint,
        "sampler": None if record.sampler is None else to_dict(record.sampler),
        "metrics": {name: float(np.mean(values)) for name, values in by_seed.items()},
        "by_seed": by_seed,
        "difference": difference,
    }


def _check_same(name: str, measured: list[Measured], first: list[Measured], same: str) -> None:
    if len(measured) != len(first):
        raise DataError(f"{name} has {len(measured)} evaluations, the first model {len(first)}; measure the same seeds")
    if len({m.result.seed for m in measured}) < len(measured):
        raise DataError(f"two evaluations of {name} are of one seed")
    if len({(m.result.models[0].sha256, m.result.models[0].sampler) for m in measured}) > 1:
        raise DataError(f"the evaluations of {name} are of different weights or samplers")
    for a, b in zip(measured, first, strict=True):
        for what, mine, theirs in (
            ("protocols", a.result.protocol, b.result.protocol),
            ("seeds", a.result.seed, b.result.seed),
            ("pictures", a.images, b.images),
            (f"{same}s", *(getattr(one.result.models[0], same) for one in (a, b))),
        ):
            if mine != theirs:
                raise DataError(f"the evaluations of {name} and of the first model are of different {what}")
