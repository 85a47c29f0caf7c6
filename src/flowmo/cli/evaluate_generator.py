"""``flowmo evaluate-generator``: FID, sFID, precision and recall of generated pictures against a data set, as ADM's
evaluator defines them. The statistics of the data set are made once and kept (FLOWMO_CACHE). SAMPLES is an .npz of
'flowmo generate --npz' or a folder of pictures. With labels on both sides a classifier says how often it sees the class
that was asked."""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..data import ImageSource, open_split, to_uint8
from ..errors import ConfigError, DataError, ImageError, WeightsError
from ..evaluation.generated import (
    CONVENTIONS,
    Samples,
    agreement,
    class_places,
    describe_reference,
    logits_of,
    measure_generated,
    read_samples,
)
from ..evaluation.reference import Reference, adm_reference, prepared, reference_of
from ..evaluation.results import DataRecord, Result, list_checksum, picture_checksums, write_result
from ..metrics.features import FeatureNetwork, load_inception
from ..metrics.table import FEW, columns
from ..perceptual.classifier import load_classifier
from ..provenance import machine
from . import common

A_CLASS = 20
"""Pictures of each class of the reference that the classifier sees."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("samples", nargs="+", metavar="SAMPLES", help=".npz in ADM's layout, or folder of pictures")
    parser.add_argument(
        "reference",
        metavar="REFERENCE",
        help="data set that they should look like, or reference .npz of ADM's evaluator",
    )
    parser.add_argument("--split", help="part of the data set (default: train, where it has several)")
    parser.add_argument("--limit", type=common.positive, metavar="N", help="of the data set, the first N pictures only")
    parser.add_argument(
        "--out", type=Path, default=Path("results"), metavar="DIR", help="folder for SAMPLES.json (default: results)"
    )
    parser.add_argument("--force", action="store_true", help="overwrite results that exist")
    parser.add_argument("--no-agreement", action="store_true", help="do not ask the classifier for the classes")
    parser.add_argument("--json", action="store_true", help="print the result as JSON, and nothing else, to stdout")
    common.add_device_argument(parser)
    files = parser.add_argument_group("networks that measure", "files of weights where none are installed")
    files.add_argument("--inception", type=Path, metavar="FILE", help="weights of Inception")
    files.add_argument(
        "--inception-classifier", type=Path, metavar="FILE", help="Inception's last layer, for the Inception Score"
    )
    files.add_argument("--classifier", type=Path, metavar="FILE", help="weights of EfficientNet-lite0")


def run(arguments: argparse.Namespace) -> int:
    device = common.find_device(arguments.device)
    start = time.perf_counter()
    samples = [read_samples(path) for path in arguments.samples]
    sizes = {s.pixels.shape[1:3] for s in samples}
    if len(sizes) > 1 or len(set(next(iter(sizes)))) > 1:
        raise ConfigError(f"samples must be square and of one size, got {', '.join(map(str, sorted(sizes)))}")
    targets = [arguments.out / f"{s.name}.json" for s in samples]
    if len(set(targets)) < len(targets):
        raise ConfigError("two of the samples would have results of the same name; measure them one by one, by --out")
    common.check_targets(targets, map(Path, arguments.samples), arguments.force)
    network = load_inception(arguments.inception, arguments.inception_classifier).to(device)
    source, split = _open(arguments)
    size = samples[0].pixels.shape[1]
    progress = common.Progress((len(source) if source else 0) + sum(len(s.pixels) for s in samples))
    reference = _reference(arguments, source, size, network, device, progress)
    measure_agreement = (
        None if arguments.no_agreement else _agreement(arguments, source, samples, size, device, progress)
    )
    rows = []
    for each, target in zip(samples, targets, strict=True):
        metrics = measure_generated(each, reference, network, device, progress.advance)
        if measure_agreement is not None:
            metrics |= measure_agreement(each)
        rows.append(metrics)
        checksums = picture_checksums(torch.from_numpy(np.array(each.pixels)).permute(0, 3, 1, 2))
        content = {
            "metrics": metrics,
            "conventions": {name: CONVENTIONS[name] for name in metrics if name in CONVENTIONS},
            "reference": describe_reference(reference) | {"split": split},
            "network": {"name": network.name, "sha256": network.checksum},
        }
        result = Result(
            kind="generation",
            protocol="ADM's evaluator",
            data=DataRecord(f"samples {each.name}", list_checksum(checksums), len(checksums), (size, size)),
            models=(),
            seed="as the samples were made",
            content=content,
            seconds=time.perf_counter() - start,
            command=arguments.command_line,
            machine=machine(device),
        )
        write_result(target, result)
    code = progress.finish()
    if arguments.json:
        results = [{"samples": s.name, "count": len(s.pixels)} | r for s, r in zip(samples, rows, strict=True)]
        common.print_json({"results": results})
        return code
    shown = [column for name, column in columns().items() if any(name in row for row in rows)]
    common.print_table(
        ["samples", "pictures", *(column.heading for column in shown)],
        [
            [s.name, str(len(s.pixels)), *(column.text(row.get(column.name), "n/a") for column in shown)]
            for s, row in zip(samples, rows, strict=True)
        ],
    )
    if min(len(s.pixels) for s in samples) < FEW:
        print("\nFID of so few pictures is far above that of 50,000 and compares with that of equal counts alone")
    print(f"results are in {arguments.out}")
    return code


def _open(arguments: argparse.Namespace) -> tuple[ImageSource | None, str | None]:
    if Path(arguments.reference).suffix == ".npz":
        return None, None
    return open_split(arguments.reference, arguments.split, "train", arguments.limit)


def _reference(
    arguments: argparse.Namespace,
    source: ImageSource | None,
    size: int,
    network: FeatureNetwork,
    device: torch.device,
    progress: common.Progress,
) -> Reference:
    if source is None:
        return adm_reference(Path(arguments.reference), network, device)
    return reference_of(source, size, network, device, progress.advance)


def _agreement(
    arguments: argparse.Namespace,
    source: ImageSource | None,
    samples: list[Samples],
    size: int,
    device: torch.device,
    progress: common.Progress,
) -> Any:
    """A function of samples that says how often the classifier sees the class that was asked; None where there are no
    labels, or no such weights."""
    if arguments.no_agreement or source is None or source.label(0) is None or all(s.labels is None for s in samples):
        return None
    try:
        classifier = load_classifier(arguments.classifier).to(device)
    except WeightsError as error:
        if arguments.classifier:
            raise
        progress.say(f"note: agreement with the classes is left out: {error}")
        return None
    pixels, labels = _some_of_each(source, size)
    try:
        logits = logits_of(pixels, classifier, device)
        places = class_places(logits, labels)
    except DataError as error:
        progress.say(f"note: agreement with the classes is left out: {error}")
        return None
    own = agreement(logits, labels, places)

    def share(each: Samples) -> dict[str, float]:
        if each.labels is None or each.labels.max() >= len(places) or each.labels.min() < 0:
            return {}
        found = agreement(logits_of(each.pixels, classifier, device), each.labels, places)
        return {"agreement": found, "agreement_reference": own, "agreement_chance": 1 / len(places)}

    return share


def _some_of_each(source: ImageSource, size: int) -> tuple[np.ndarray, np.ndarray]:
    seen: dict[int, int] = {}
    pixels, labels = [], []
    for place in range(len(source)):
        label = source.label(place)
        if label is None or seen.get(label, 0) >= A_CLASS:
            continue
        try:
            image = prepared(source, place, size)
        except ImageError:
            continue
        seen[label] = seen.get(label, 0) + 1
        pixels.append(to_uint8(image).permute(1, 2, 0).numpy())
        labels.append(label)
    return np.stack(pixels), np.array(labels)
