"""``flowmo evaluate-generator``: FID, sFID, precision and recall of generated pictures against a data set, as ADM's
evaluator defines them. The statistics of the data set are made once and kept (FLOWMO_CACHE). SAMPLES is an .npz of
'flowmo generate --npz' or a folder of pictures. With labels on both sides a classifier says how often it sees the class
that was asked."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path

import torch

from ..data import ImageSource, open_split
from ..devices import usable_device
from ..errors import ConfigError, DataError, WeightsError
from ..evaluation.class_agreement import class_agreement, has_labels
from ..evaluation.generated import Samples, common_side, generated_result, measure_generated, read_samples
from ..evaluation.reference import adm_reference, reference_of
from ..evaluation.results import write_result
from ..files import check_targets
from ..metrics.features import load_inception
from ..metrics.table import FEW, result_table
from ..perceptual.classifier import load_classifier
from . import common
from .fields import add_flag
from .printing import Progress, print_json, print_table
from .values import positive

CROP = (
    "how the data set's pictures become squares: as the model sees them (bilinear), or adm as the reference batches of "
    "ADM's evaluator (halved by a box filter, then bicubic)"
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("samples", nargs="+", metavar="SAMPLES", help=".npz in ADM's layout, or folder of pictures")
    what = "data set that they should look like, or reference .npz of ADM's evaluator"
    parser.add_argument("reference", metavar="REFERENCE", help=what)
    parser.add_argument("--split", help="part of the data set (default: train, where it has several)")
    add_flag(parser, "--reference-crop", ("model", "adm"), CROP, "model")
    add_flag(parser, "--limit", positive, "of the data set, the first N pictures only")
    common.add_output_arguments(parser, "results")
    parser.add_argument("--no-agreement", action="store_true", help="do not ask the classifier for the classes")
    common.add_json_argument(parser)
    common.add_device_argument(parser)
    common.add_weights_arguments(parser, "inception", "inception_classifier", "classifier")


def run(arguments: argparse.Namespace) -> int:
    a, start = arguments, time.perf_counter()
    device = usable_device(a.device)
    samples = [read_samples(path) for path in a.samples]
    size = common_side(samples)
    targets = [a.out / f"{s.name}.json" for s in samples]
    if len(set(targets)) < len(targets):
        raise ConfigError("two of the samples would have results of the same name; measure them one by one, by --out")
    check_targets(targets, map(Path, a.samples), a.force)
    network = load_inception(a.inception, a.inception_classifier).to(device)
    source, split = None, None
    if Path(a.reference).suffix != ".npz":
        source, split = open_split(a.reference, a.split, "train", a.limit)
    elif a.reference_crop != "model":
        raise ConfigError(
            f"--reference-crop {a.reference_crop} is for a data set; {a.reference} is an .npz, whose "
            "pictures are cropped already"
        )
    progress = Progress((len(source) if source else 0) + sum(len(s.pixels) for s in samples))
    if source is None:
        reference = adm_reference(Path(a.reference), network, device)
    else:
        reference = reference_of(source, size, network, device, progress.advance, crop=a.reference_crop)
    agreement = None
    if source is not None and not a.no_agreement and has_labels(source, samples):
        agreement = _agreement(a, source, size, device, progress)
    rows = []
    for each, target in zip(samples, targets, strict=True):
        metrics = measure_generated(each, reference, network, device, progress.advance)
        metrics |= agreement(each) if agreement else {}
        rows.append(metrics)
        seconds = time.perf_counter() - start
        result = generated_result(each, metrics, reference, network, split, device, seconds, a.command_line)
        write_result(target, result)
    code = progress.finish()
    if a.json:
        results = [{"samples": s.name, "count": len(s.pixels)} | r for s, r in zip(samples, rows, strict=True)]
        print_json({"results": results})
        return code
    names = [[s.name, str(len(s.pixels))] for s in samples]
    print_table(*result_table(["samples", "pictures"], names, rows))
    if min(len(s.pixels) for s in samples) < FEW:
        print("\nFID of so few pictures is far above that of 50,000 and compares with that of equal counts alone")
    print(f"results are in {a.out}")
    return code


def _agreement(
    arguments: argparse.Namespace, source: ImageSource, size: int, device: torch.device, progress: Progress
) -> Callable[[Samples], dict[str, float]] | None:
    """Return :func:`class_agreement`; None, with a note, where there are no weights for it, or a class is empty."""
    try:
        classifier = load_classifier(arguments.classifier).to(device)
        return class_agreement(source, size, classifier, device, arguments.reference_crop)
    except (WeightsError, DataError) as error:
        if arguments.classifier and isinstance(error, WeightsError):
            raise
        progress.say(f"note: agreement with the classes is left out: {error}")
        return None
