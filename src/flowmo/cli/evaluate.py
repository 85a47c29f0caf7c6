"""``flowmo evaluate``: measures models on a data set, by a named protocol.

"standard" takes every picture by itself as it would be saved; "published" measures as the paper's numbers were made.
Each model and protocol gives MODEL-PROTOCOL.json and a table of all pictures, MODEL-PROTOCOL.csv. A command that was
killed goes on where it was when it is given again; under torchrun several processes share the pictures. With --watch,
MODEL is the folder of a training in progress, and each new model.safetensors in it is measured. --peers measures the
tokenizers of Table 1 from the files that their authors publish.
"""

from __future__ import annotations

import argparse
from dataclasses import fields
from typing import Any

from ..codec import Rates
from ..evaluation.protocols import PROTOCOLS
from ..evaluation.results import Result, as_json
from ..evaluation.session import flat
from ..files import folder_in_words
from ..metrics.networks import WeightFiles
from ..metrics.table import default_families, families, note_of_few, result_table
from ..pipelines.evaluation import BOTH, EvaluationRequest, evaluate_all
from ..progress import Progress
from .arguments import common
from .arguments.fields import add_flag, fields_of
from .arguments.models import load_options, sampler_given
from .arguments.peers import add_peer_arguments
from .arguments.rates import add_rate_arguments
from .arguments.values import finite, positive
from .printing import is_first, print_json, print_table


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("models", nargs="*", metavar="MODEL", help=f"{common.MODEL_HELP}; one or several")
    common.add_data_arguments(parser)
    add_peer_arguments(parser, "--peers", "measure other people's tokenizers too", nargs="+", default=[])
    add_flag(parser, "--protocol", (*PROTOCOLS, BOTH), "how to measure", "standard")
    others = ", ".join(name for name in families() if name not in default_families())
    what = f"of {', '.join(families())} (default: all but {others})"
    parser.add_argument("--metrics", nargs="+", default=default_families(), metavar="NAME", help=what)
    common.add_output_arguments(parser, f"{common.OUT}/results", force="overwrite results of other settings or code")
    add_rate_arguments(parser, several=True)
    common.add_run_arguments(parser)
    common.add_precision_arguments(parser)
    watch = parser.add_argument_group("training in progress")
    watch.add_argument("--watch", action="store_true", help="measure each new model.safetensors until training ends")
    add_flag(watch, "--watch-limit", positive, "stop after N of them")
    add_flag(watch, "--watch-every", finite, "between looks", 10.0, metavar="SECONDS")
    common.add_sampling_arguments(parser, "starting noise: picture i is sampled from this plus i")
    common.add_model_arguments(parser, flag=False)
    common.add_weights_arguments(parser, *(f.name for f in fields(WeightFiles)))


def run(arguments: argparse.Namespace) -> int:
    progress = Progress(0)
    results = evaluate_all(_request(arguments), progress)
    code = progress.finish()
    if arguments.json and is_first():
        print_json({"results": [as_json(result) for result in results], "folder": str(arguments.out)})
    elif results:
        _print(results)
        print(f"\nresults and tables of pictures are in {folder_in_words(arguments.out)}")
    return code


def _request(arguments: argparse.Namespace) -> EvaluationRequest:
    made: dict[str, Any] = {
        "rates": Rates(**fields_of(arguments, Rates)),
        "sampler": sampler_given(arguments),
        "load": load_options(arguments),
        "files": WeightFiles(**fields_of(arguments, WeightFiles)),
        "command": arguments.command_line,
    }
    return EvaluationRequest(**fields_of(arguments, EvaluationRequest) | made)


def _print(results: list[Result]) -> None:
    rows = [flat(result) for result in results]
    names = [[result.models[0].name, result.protocol, str(result.data.count)] for result in results]
    print_table(*result_table(["model", "protocol", "pictures"], names, rows))
    print(end=note_of_few([result.data.count for result in results], rows))
