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
from ..errors import ConfigError, DataError, WeightsError
from ..evaluation.class_agreement import class_agreement
from ..evaluation.generated import Samples, generated_result, measure_generated, read_samples
from ..evaluation.reference import adm_reference, reference_of
from ..evaluation.results import write_result
from ..metrics.features import load_inception
from ..metrics.table import FEW, result_table
from ..perceptual.classifier import load_classifier
from . import common


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("samples", nargs="+", metavar="SAMPLES", help=".npz in ADM's layout, or folder of pictures")
    parser.add_argument(
        "reference",
        metavar="REFERENCE",
        help="data set that they should look like, or reference .npz of ADM's evaluator",
    )
    parser.add_argument("--split", help="part of the data set (default: train, where it has several)")
    parser.add_argument(
        "--reference-crop",
        choices=("model", "adm"),
        default="model",
        help="how the data set's pictures become squares: as the model sees them (bilinear), or adm as the reference "
        "batches of ADM's evaluator (halved by a box filter, then bicubic) (default: model)",
    )
    parser.add_argument("--limit", type=common.positive, metavar="N", help="of the data set, the first N pictures only")
    common.add_output_arguments(parser, "results")
    parser.add_argument("--no-agreement", action="store_true", help="do not ask the classifier for the classes")
    common.add_json_argument(parser)
    common.add_device_argument(parser)
    common.add_weights_arguments(parser, "inception", "inception_classifier", "classifier")


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
    source, split = None, None
    if Path(arguments.reference).suffix != ".npz":
        source, split = open_split(arguments.reference, arguments.split, "train", arguments.limit)
    elif arguments.reference_crop != "model":
        raise ConfigError(
            f"--reference-crop {arguments.reference_crop} is for a data set; {arguments.reference} is an .npz, whose "
            "pictures are cropped already"
        )
    size = samples[0].pixels.shape[1]
    progress = common.Progress((len(source) if source else 0) + sum(len(s.pixels) for s in samples))
    reference = (
        adm_reference(Path(arguments.reference), network, device)
        if source is None
        else reference_of(source, size, network, device, progress.advance, crop=arguments.reference_crop)
    )
    agreement = _agreement(arguments, source, samples, device, progress)
    rows = []
    for each, target in zip(samples, targets, strict=True):
        metrics = measure_generated(each, reference, network, device, progress.advance) | agreement(each)
        rows.append(metrics)
        seconds = time.perf_counter() - start
        result = generated_result(each, metrics, reference, network, split, device, seconds, arguments.command_line)
        write_result(target, result)
    code = progress.finish()
    if arguments.json:
        results = [{"samples": s.name, "count": len(s.pixels)} | r for s, r in zip(samples, rows, strict=True)]
        common.print_json({"results": results})
        return code
    names = [[s.name, str(len(s.pixels))] for s in samples]
    common.print_table(*result_table(["samples", "pictures"], names, rows))
    if min(len(s.pixels) for s in samples) < FEW:
        print("\nFID of so few pictures is far above that of 50,000 and compares with that of equal counts alone")
    print(f"results are in {arguments.out}")
    return code


def _agreement(
    arguments: argparse.Namespace,
    source: ImageSource | None,
    samples: list[Samples],
    device: torch.device,
    progress: common.Progress,
) -> Callable[[Samples], dict[str, float]]:
    """A function of samples that says how often the classifier sees the class that was asked; nothing where there are
    no labels, or no such weights."""
    labelled = source is not None and source.label(0) is not None and any(s.labels is not None for s in samples)
    if arguments.no_agreement or source is None or not labelled:
        return lambda each: {}
    try:
        classifier = load_classifier(arguments.classifier).to(device)
        return class_agreement(source, samples[0].pixels.shape[1], classifier, device, arguments.reference_crop)
    except (WeightsError, DataError) as error:
        if arguments.classifier and isinstance(error, WeightsError):
            raise
        progress.say(f"note: agreement with the classes is left out: {error}")
        return lambda each: {}
