"""``flowmo evaluate``: measures models on a data set, by a named protocol: "standard", every picture by itself as it
would be saved, or "published", as the paper's numbers were made. Each model and protocol gives MODEL-PROTOCOL.json and
a table of all pictures, MODEL-PROTOCOL.csv. A command that was killed goes on where it was when it is given again;
under torchrun several processes share the pictures. With --watch, MODEL is the folder of a training in progress, and
each new model.safetensors in it is measured."""

from __future__ import annotations

import argparse
import contextlib
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..data import ImageSource, SplitError, open_images
from ..errors import ConfigError
from ..evaluation.evaluate import Settings
from ..evaluation.protocols import PROTOCOLS, Protocol, get_protocol
from ..evaluation.results import Result
from ..evaluation.session import Job, Session, evaluate, find_result, flat, hold, prepare, stem_of
from ..evaluation.watch import WatchLog, run_length, snapshots
from ..metrics.networks import Networks, WeightFiles, load_networks
from ..metrics.table import FEW, check_metrics, columns, default_families, families
from ..tokenizer import FlowMo
from ..training import World
from . import common
from .rates import add_rates_arguments, rates_of

FILES = ("lpips_alex", "lpips_vgg", "inception", "inception_classifier", "classifier")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("models", nargs="+", metavar="MODEL", help=f"{common.MODEL_HELP}; one or several")
    parser.add_argument(
        "data", metavar="DATA", help="folder of pictures, tar, WebDataset shards, Parquet files or one .npy array"
    )
    parser.add_argument(
        "--split", metavar="NAME", help="part of the data (default: validation, or all where there are no parts)"
    )
    parser.add_argument("--limit", type=common.positive, metavar="N", help="measure the first N pictures only")
    parser.add_argument(
        "--protocol", choices=(*PROTOCOLS, "both"), default="standard", help="how to measure (default: standard)"
    )
    parser.add_argument(
        "--metrics",
        nargs="+",
        default=default_families(),
        metavar="NAME",
        help=f"of {', '.join(families())} (default: all but kd_efflite0)",
    )
    parser.add_argument(
        "--out", type=Path, default=Path("results"), metavar="DIR", help="folder for the results (default: results)"
    )
    parser.add_argument("--force", action="store_true", help="overwrite results of other settings or code")
    add_rates_arguments(parser)
    common.add_run_arguments(parser)
    watch = parser.add_argument_group("training in progress")
    watch.add_argument("--watch", action="store_true", help="measure each new model.safetensors until training ends")
    watch.add_argument("--watch-limit", type=common.positive, metavar="N", help="stop after N of them")
    watch.add_argument(
        "--watch-every", type=common.finite, default=10.0, metavar="SECONDS", help="between looks (default: 10)"
    )
    common.add_sampling_arguments(parser, "starting noise: picture i is sampled from this plus i")
    common.add_model_arguments(parser, flag=False)
    files = parser.add_argument_group("networks that measure", "files of weights where none are installed")
    for name in FILES:
        files.add_argument(
            f"--{name.replace('_', '-')}", type=Path, metavar="FILE", help=f"weights of {_network(name)}"
        )


def run(arguments: argparse.Namespace) -> int:
    device = common.find_device(arguments.device)
    protocols = [get_protocol(p) for p in PROTOCOLS if arguments.protocol in (p, "both")]
    check_metrics(arguments.metrics, 1)
    world = World.join(str(device))
    try:
        with hold(arguments.out) if world.main else contextlib.nullcontext():
            work = _Work(arguments, protocols, world)
            return work.watch() if arguments.watch else work.models()
    finally:
        world.leave()


class _Work:
    """The command's session: its data, its networks, its progress."""

    def __init__(self, arguments: argparse.Namespace, protocols: list[Protocol], world: World) -> None:
        self.arguments, self.protocols, self.world = arguments, protocols, world
        source, split = _open(arguments)
        self.rates = max(len(g or (1,)) for g in (arguments.bits_per_token, arguments.bytes, arguments.bits_per_pixel))
        self.progress = common.Progress(len(source) * len(protocols) * len(arguments.models) * self.rates // world.size)
        self.named: set[str] = set()
        self.networks: dict[tuple[str, int], Networks] = {}
        self.metrics = check_metrics(arguments.metrics, len(source))
        data = arguments.data if ":" in arguments.data else Path(arguments.data).resolve().name
        self.session = Session(
            arguments.out, source, data, split, arguments.force, arguments.command_line, world, self.bad, self.done
        )

    def models(self) -> int:
        """Everything is loaded and checked once before the first picture is measured."""
        names, results = self.arguments.models, []
        stems = [stem_of(name, self.protocols[0]) for name in names]
        if len(set(stems)) < len(stems):
            raise ConfigError(
                "two of the models would have results of the same name; measure them one by one, by --out"
            )
        plans: list[tuple[str, list[tuple[Job, Result | None]]]] = []
        for name in names:
            model = self.load(name)
            jobs = self.jobs(model, name)
            plans.append((name, [(job, find_result(self.session, job)) for job in jobs]))
        for name, plan in plans:
            if len(names) > 1 and any(known is None for _, known in plan):
                model = self.load(name)
            results += [self.measure(model, job, known) for job, known in plan]
        self.progress.expect(len(self.session.source))
        return self.finish([result for result in results if result is not None])

    def watch(self) -> int:
        arguments = self.arguments
        if len(arguments.models) > 1 or self.world.size > 1:
            raise ConfigError("--watch takes the folder of one run, in one process")
        folder = Path(arguments.models[0])
        run_length(folder)  # raises where it is none
        log = WatchLog(arguments.out / f"{folder.resolve().name}.jsonl")
        count, results, rates = 0, [], self.rates
        self.progress.say(f"watching {folder}; Ctrl-C ends it, the same command goes on")
        try:
            for snapshot in snapshots(
                folder, arguments.device, lambda sha: log.known(sha, len(self.protocols) * rates), arguments.watch_every
            ):
                name = f"{folder.resolve().name}-{snapshot.images:010d}"
                for job in self.jobs(snapshot.model, name):
                    protocol = job.settings.protocol
                    result = self.measure(snapshot.model, job, find_result(self.session, job))
                    assert result is not None
                    line = {"images": snapshot.images, "sha256": snapshot.sha256, "protocol": protocol.name}
                    log.add(line | {"count": result.data.count} | flat(result) | {"time": round(time.time())})
                    results.append(result)
                    self.progress.say(f"{snapshot.images:,} images, {protocol.name}: {_words(flat(result))}")
                count += 1
                if count == arguments.watch_limit:
                    break
        except KeyboardInterrupt:
            self.progress.say("stopped")
        code = self.finish(results)
        self.progress.say(f"a line an evaluation is in {log.path}")
        return code

    def load(self, name: str) -> FlowMo:
        return common.load_named(self.arguments, name, self.arguments.raw_weights, self.world.device)

    def jobs(self, model: FlowMo, name: str) -> list[Job]:
        """Return the measurements of a model: at each rate, under each protocol."""
        rates = rates_of(self.arguments, model.config)
        return [self.job(model, name, protocol, bits) for protocol in self.protocols for bits in rates]

    def job(self, model: FlowMo, name: str, protocol: Protocol, bits: int | None) -> Job:
        side, key = model.config.image_size, (protocol.inception, model.config.image_size)
        if key not in self.networks:
            files = WeightFiles(**{name: getattr(self.arguments, name) for name in FILES})
            self.networks[key] = load_networks(self.metrics, protocol.inception, side, model.device, files)
            if self.world.main and len(self.networks) == 1:
                for metric, reason in self.networks[key].left_out.items():
                    self.progress.say(f"note: {metric} is left out: {reason}")
        sampler = common.sampler_of(self.arguments, model)
        settings = Settings(protocol, sampler, self.arguments.seed, self.arguments.batch_size, bits)
        return prepare(model, name, settings, self.networks[key])

    def measure(self, model: FlowMo, job: Job, known: Result | None) -> Result | None:
        if known is not None:
            self.progress.say(f"{job.stem}: measured already")
            self.progress.advance(len(self.session.source))
            return known
        return evaluate(model, self.session, job)

    def bad(self, name: str, error: Any) -> None:
        if name in self.named:
            self.progress.advance()
        else:
            self.named.add(name)
            self.progress.skip(name, error)

    def done(self, count: int, measured: bool) -> None:
        self.progress.advance(count)

    def finish(self, results: list[Result]) -> int:
        code = self.progress.finish()
        if not self.world.main:
            return code
        if self.arguments.json:
            from ..config import to_dict

            common.print_json(
                {"results": [to_dict(replace(result, content={})) | {"content": result.content} for result in results]}
            )
        elif results:
            _print(results)
            print(f"\nresults and tables of pictures are in {self.arguments.out}")
        return code


def _open(arguments: argparse.Namespace) -> tuple[ImageSource, str | None]:
    split = arguments.split or "validation"
    try:
        return open_images(arguments.data, arguments.limit, split), split
    except SplitError:
        if arguments.split:
            raise
        return open_images(arguments.data, arguments.limit), None


def _network(name: str) -> str:
    names = {
        "lpips_alex": "LPIPS (Alex)",
        "lpips_vgg": "LPIPS (VGG)",
        "inception": "Inception",
        "inception_classifier": "Inception's last layer, for the Inception Score",
        "classifier": "EfficientNet-lite0",
    }
    return names[name]


def _print(results: list[Result]) -> None:
    rows = [flat(result) for result in results]
    shown = [column for name, column in columns().items() if any(name in row for row in rows)]
    header = ["model", "protocol", "pictures", *(column.heading for column in shown)]
    lines = [
        [
            result.models[0].name,
            result.protocol,
            str(result.data.count),
            *(column.text(row.get(column.name), "n/a") for column in shown),
        ]
        for result, row in zip(results, rows, strict=True)
    ]
    common.print_table(header, lines)
    few = min(result.data.count for result in results)
    if few < FEW and any("rfid" in row for row in rows):
        print(f"\nrFID of {few} pictures is far above that of 50,000 and compares with no other number; KID does")


def _words(row: dict[str, Any]) -> str:
    return ", ".join(f"{column.heading} {column.text(row[name])}" for name, column in columns().items() if name in row)
