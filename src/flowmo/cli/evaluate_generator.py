"""``flowmo evaluate-generator``: measures generated pictures against a data set as ADM's evaluator does.

The numbers are FID, sFID, precision and recall. The statistics of the data set are made once and kept (FLOWMO_CACHE).
SAMPLES is an .npz of 'flowmo generate --npz' or a folder of pictures. With labels on both sides a classifier says how
often it sees the class that was asked. Under torchrun several processes share the pictures.
"""

from __future__ import annotations

import argparse

from ..devices import usable_device
from ..evaluation.generated_session import GeneratedRequest, evaluate_generated
from ..files import folder_in_words
from ..metrics.table import note_of_few, result_table
from ..progress import Progress
from ..training import World
from .arguments import common
from .arguments.fields import fields_of
from .arguments.values import positive
from .printing import print_json, print_table


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
    common.add_output_arguments(parser, f"{common.OUT}/results")
    parser.add_argument("--no-agreement", action="store_true", help="do not ask the classifier for the classes")
    common.add_json_argument(parser)
    common.add_device_argument(parser)
    networks = "the networks that measure"
    common.add_precision_arguments(parser, f"products in {networks}; features stay in float32", networks)
    common.add_weights_arguments(parser, "inception", "inception_classifier", "classifier")


def run(arguments: argparse.Namespace) -> int:
    a, progress = arguments, Progress(0)
    request = GeneratedRequest(**fields_of(a, GeneratedRequest) | {"command": a.command_line})
    with World.join(str(usable_device(a.device))) as world:
        callbacks = (progress.say, progress.expect, progress.advance)
        found = evaluate_generated(request, world.device, world, *callbacks)
    code = progress.finish()
    if not world.main:
        return code
    counts = [len(samples.pixels) for samples, _ in found]
    if a.json:
        results = [{"samples": s.name, "count": n} | metrics for (s, metrics), n in zip(found, counts, strict=True)]
        print_json({"results": results, "folder": str(a.out)})
        return code
    names = [[s.name, str(n)] for (s, _), n in zip(found, counts, strict=True)]
    print_table(*result_table(["samples", "pictures"], names, [metrics for _, metrics in found]))
    print(end=note_of_few(counts, [metrics for _, metrics in found]))
    print(f"\nresults are in {folder_in_words(a.out)}")
    return code
