"""``flowmo evaluate-generator``: FID, sFID, precision and recall of generated pictures against a data set, as ADM's
evaluator defines them. The statistics of the data set are made once and kept (FLOWMO_CACHE). SAMPLES is an .npz of
'flowmo generate --npz' or a folder of pictures. With labels on both sides a classifier says how often it sees the class
that was asked. Under torchrun several processes share the pictures."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..data import ImageSource, open_split
from ..devices import usable_device
from ..errors import ConfigError, DataError, WeightsError
from ..evaluation.class_agreement import class_agreement, has_labels
from ..evaluation.generated import Samples, common_side, generated_result, measure_generated, read_samples
from ..evaluation.reference import BATCH, adm_reference, reference_of
from ..evaluation.results import write_result
from ..files import check_targets
from ..metrics.features import Faster, FeatureNetwork, faster, load_inception
from ..metrics.table import FEW, result_table
from ..perceptual.classifier import load_classifier
from ..training import World
from . import common
from .printing import Progress, print_json, print_table
from .values import positive


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
    parser.add_argument("--limit", type=positive, metavar="N", help="of the data set, the first N pictures only")
    common.add_output_arguments(parser, "results")
    parser.add_argument("--no-agreement", action="store_true", help="do not ask the classifier for the classes")
    common.add_json_argument(parser)
    common.add_device_argument(parser)
    networks = "the networks that measure"
    common.add_precision_arguments(parser, f"products in {networks}; features stay in float32", networks)
    common.add_weights_arguments(parser, "inception", "inception_classifier", "classifier")


def run(arguments: argparse.Namespace) -> int:
    device = usable_device(arguments.device)
    world = World.join(str(device))
    try:
        return _run(arguments, world)
    finally:
        world.leave()


def _run(arguments: argparse.Namespace, world: World) -> int:
    device, start = world.device, time.perf_counter()
    samples = [read_samples(path) for path in arguments.samples]
    size = common_side(samples)
    targets = [arguments.out / f"{s.name}.json" for s in samples]
    if len(set(targets)) < len(targets):
        raise ConfigError("two of the samples would have results of the same name; measure them one by one, by --out")
    check_targets(targets, map(Path, arguments.samples), arguments.force)
    network = _network(arguments, device)
    source, split = None, None
    if Path(arguments.reference).suffix != ".npz":
        source, split = open_split(arguments.reference, arguments.split, "train", arguments.limit)
    elif arguments.reference_crop != "model":
        raise ConfigError(
            f"--reference-crop {arguments.reference_crop} is for a data set; {arguments.reference} is an .npz, whose "
            "pictures are cropped already"
        )
    crop = arguments.reference_crop
    total = (len(source) if source else 0) + sum(len(s.pixels) for s in samples)
    progress = Progress(total // world.size)
    reference = (
        adm_reference(Path(arguments.reference), network, device, world)
        if source is None
        else reference_of(source, size, network, device, progress.advance, crop=crop, processes=world)
    )
    agreement = _agreement(arguments, source, samples, world, progress)
    rows = []
    for each, target in zip(samples, targets, strict=True):
        metrics = measure_generated(each, reference, network, device, progress.advance, world) | agreement(each)
        if not world.main:
            continue
        rows.append(metrics)
        seconds, command, how = time.perf_counter() - start, arguments.command_line, _how(arguments)
        result = generated_result(each, metrics, reference, network, split, device, seconds, command, how)
        write_result(target, result)
    code = progress.finish()
    if world.main:
        _print(arguments, samples, rows)
    return code


def _network(arguments: argparse.Namespace, device: torch.device) -> FeatureNetwork:
    """Inception, in the precision of the arguments and compiled where they say so."""
    network = load_inception(arguments.inception, arguments.inception_classifier).to(device)
    if not _how(arguments):
        return network
    return Faster(network, _faster(arguments, network.forward, device), arguments.precision)


def _faster(
    arguments: argparse.Namespace, function: Callable[[Tensor], Any], device: torch.device
) -> Callable[[Tensor], Any]:
    return faster(function, device, arguments.precision, BATCH if arguments.compile else None)


def _how(arguments: argparse.Namespace) -> dict[str, Any]:
    """What a result says of precision and compilation, which is nothing for float32 as it is."""
    found: dict[str, Any] = {} if arguments.precision == "fp32" else {"precision": arguments.precision}
    return found | ({"compiled": True} if arguments.compile else {})


def _print(arguments: argparse.Namespace, samples: list[Samples], rows: list[dict[str, float]]) -> None:
    if arguments.json:
        results = [{"samples": s.name, "count": len(s.pixels)} | r for s, r in zip(samples, rows, strict=True)]
        print_json({"results": results})
        return
    names = [[s.name, str(len(s.pixels))] for s in samples]
    print_table(*result_table(["samples", "pictures"], names, rows))
    if min(len(s.pixels) for s in samples) < FEW:
        print("\nFID of so few pictures is far above that of 50,000 and compares with that of equal counts alone")
    print(f"results are in {arguments.out}")


def _agreement(
    arguments: argparse.Namespace,
    source: ImageSource | None,
    samples: list[Samples],
    world: World,
    progress: Progress,
) -> Callable[[Samples], dict[str, float]]:
    """A function of samples that says how often the classifier sees the class that was asked; nothing where there are
    no labels, or no such weights."""
    labelled = source is not None and has_labels(source, samples)
    if arguments.no_agreement or source is None or not labelled:
        return lambda each: {}
    try:
        logits = _faster(arguments, load_classifier(arguments.classifier).to(world.device).logits, world.device)
        size = samples[0].pixels.shape[1]
        return class_agreement(source, size, logits, world.device, arguments.reference_crop, world)
    except (WeightsError, DataError) as error:
        if arguments.classifier and isinstance(error, WeightsError):
            raise
        if world.main:
            progress.say(f"note: agreement with the classes is left out: {error}")
        return lambda each: {}
