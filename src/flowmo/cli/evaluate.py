"""``flowmo evaluate``: measures models on a data set, by a named protocol.

"standard" takes every picture by itself as it would be saved; "published" measures as the paper's numbers were made.
Each model and protocol gives MODEL-PROTOCOL.json and a table of all pictures, MODEL-PROTOCOL.csv. A command that was
killed goes on where it was when it is given again; under torchrun several processes share the pictures. With --watch,
MODEL is the folder of a training in progress, and each new model.safetensors in it is measured. --peers measures the
tokenizers of Table 1 from the files that their authors publish.
"""

from __future__ import annotations

import argparse
import contextlib
from dataclasses import fields
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

from ..comparison.peers.tokenizer import open_tokenizer
from ..data import open_split
from ..devices import usable_device
from ..errors import ConfigError
from ..evaluation.measurable import Measurable
from ..evaluation.protocols import PROTOCOLS, Protocol, get_protocol
from ..evaluation.results import Result, as_json, data_name
from ..evaluation.session import Session, flat, hold
from ..evaluation.several import Evaluation, evaluate_models, watch_run
from ..files import folder_in_words, real_path
from ..inference import made_ready
from ..metrics.networks import WeightFiles
from ..metrics.table import check_metrics, default_families, families, in_one_line, note_of_few, result_table
from ..progress import Progress
from ..training import World
from .arguments import common, models
from .arguments.fields import add_flag, fields_of
from .arguments.peers import add_peer_arguments
from .arguments.rates import add_rate_arguments, rates_of
from .arguments.values import finite, positive
from .printing import print_json, print_table


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("models", nargs="*", metavar="MODEL", help=f"{common.MODEL_HELP}; one or several")
    common.add_data_arguments(parser)
    add_peer_arguments(parser, "--peers", "measure other people's tokenizers too", nargs="+", default=[])
    add_flag(parser, "--protocol", (*PROTOCOLS, "both"), "how to measure", "standard")
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
    if not arguments.models and not arguments.peers:
        raise ConfigError("say what to measure: flowmo evaluate MODEL DATA, or --peers NAME=FILE")
    device = usable_device(arguments.device)
    protocols = [get_protocol(p) for p in PROTOCOLS if arguments.protocol in (p, "both")]
    check_metrics(arguments.metrics, 1)
    with World.join(str(device)) as world, hold(arguments.out) if world.main else contextlib.nullcontext():
        return _run(arguments, protocols, world)


def _run(a: argparse.Namespace, protocols: list[Protocol], world: World) -> int:
    if a.watch and (len(a.models) != 1 or a.peers or world.size > 1):
        raise ConfigError("--watch measures one run in one process: give one folder, no --peers, and no torchrun")
    source, split = open_split(a.data, a.split, "validation", a.limit)
    rates = a.bits_per_token or a.bytes or a.bits_per_pixel
    if a.peers and (a.precision != "fp32" or a.compile or rates):
        raise ConfigError("--precision, --compile and rates are for FlowMo models; leave out these, or --peers")
    files = {spec.partition("=")[0]: spec for spec in a.peers}
    names = [*a.models, *files]
    progress = Progress(len(source) * len(protocols) * (len(a.models) + len(a.peers)) * len(rates or [1]) // world.size)

    def load(name: str) -> Measurable:
        if name in files:
            return open_tokenizer(files[name], a.peer_size, world.device)
        return models.load_named(a, name, a.raw_weights, world.device)

    bad = partial(progress.skip, once=True)  # models and protocols have the same ones
    about = (data_name(a.data), split, a.force, a.command_line)
    made: dict[str, Any] = {
        "session": Session(a.out, source, *about, world, bad, lambda count, _: progress.advance(count)),
        "protocols": protocols,
        "metrics": check_metrics(a.metrics, len(source)),
        "files": WeightFiles(**fields_of(a, WeightFiles)),
        "sampler": models.sampler_given(a),
        "say": progress.say,
        "compiled": a.compile,
        "ready": lambda model: model if a.peers else made_ready(model, a.precision, a.compile, a.batch_size),
        "rates": rates_of(a),
    }
    evaluation = Evaluation(**fields_of(a, Evaluation) | made)
    if a.watch:
        results = _watch(a, evaluation, progress)
    else:
        results = evaluate_models(evaluation, names, load)
        progress.expect(len(source))
    code = progress.finish()
    if not world.main:
        return code
    if a.json:
        print_json({"results": [as_json(result) for result in results], "folder": str(a.out)})
    elif results:
        _print(results)
        print(f"\nresults and tables of pictures are in {folder_in_words(a.out)}")
    return code


def _watch(a: argparse.Namespace, evaluation: Evaluation, progress: Progress) -> list[Result]:
    folder, results = Path(a.models[0]), []
    found = watch_run(evaluation, folder, a.device, a.watch_every)
    progress.say(f"watching {folder}; Ctrl-C ends it, the same command goes on")
    try:
        for images, new in islice(found, a.watch_limit):
            results += new
            for result in new:
                progress.say(f"{images:,} images, {result.protocol}: {in_one_line(flat(result))}")
    except KeyboardInterrupt:
        progress.say("stopped")
    progress.say(f"{a.out / real_path(folder).name}.jsonl has a line for each evaluation")
    return results


def _print(results: list[Result]) -> None:
    rows = [flat(result) for result in results]
    names = [[result.models[0].name, result.protocol, str(result.data.count)] for result in results]
    print_table(*result_table(["model", "protocol", "pictures"], names, rows))
    print(end=note_of_few([result.data.count for result in results], rows))
