"""How fast an update is now, beside an earlier commit's: the two take turns, so the ratio holds on a busy machine.

    python tools/compare_training_speed.py v0.1.0 --preset flowmo-fewer-params --set batch_size=1 precision=fp32
    python tools/compare_training_speed.py HEAD --now-set compile=true     # what a setting gains
    python tools/compare_training_speed.py HEAD --now-environment MALLOC_TRIM_THRESHOLD_=8000000000

Each is a process of its own with one thread, the source of its commit and the same batch of random pixels; d_perc has
random weights, since only its cost matters. A turn is one update as the loop makes it. The ratio is the median over the
rounds of seconds before / seconds now: of the clock, and of the processor time of the process alone.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib
import inspect
import io
import json
import os
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
KINDS = ("clock", "processor")


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("before", metavar="COMMIT", help="the commit to compare with")
    parser.add_argument("--preset", default="flowmo-mini-64", help="the model (default: %(default)s)")
    parser.add_argument("--size", type=int, metavar="PIXELS", help="side of the images (default: the model's)")
    parser.add_argument("--set", nargs="+", default=[], metavar="NAME=VALUE", help="training settings of both")
    parser.add_argument("--now-set", nargs="+", default=[], metavar="NAME=VALUE", help="more of them, not for before")
    parser.add_argument("--now-environment", nargs="+", default=[], metavar="NAME=VALUE", help="variables, likewise")
    parser.add_argument("--rounds", type=int, default=9, metavar="N", help="updates of each (default: %(default)s)")
    parser.add_argument("--out", type=Path, metavar="FILE", help="write the result as JSON")
    arguments = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as folder:
        archive = subprocess.run(["git", "archive", arguments.before, "src"], cwd=ROOT, check=True, capture_output=True)
        with tarfile.open(fileobj=io.BytesIO(archive.stdout)) as tar:
            tar.extractall(folder, filter="data")
        sides = [
            Side(Path(folder) / "src", arguments, arguments.set),
            Side(ROOT / "src", arguments, arguments.set + arguments.now_set, arguments.now_environment),
        ]
        try:
            seconds = take_turns(sides, arguments.rounds)
        finally:
            for side in sides:
                side.end()
    content = {
        "before": arguments.before,
        "preset": arguments.preset,
        **{name: getattr(arguments, name) for name in ("size", "set", "now_set", "now_environment", "rounds")},
        **{f"{kind}_ratio": ratio(seconds, k) for k, kind in enumerate(KINDS)},
        "seconds": [dict(zip(KINDS, map(statistics.median, zip(*each, strict=True)), strict=True)) for each in seconds],
        **sides[1].about,
    }
    print(json.dumps(content, indent=1))
    if arguments.out:
        arguments.out.write_text(json.dumps(content, indent=1) + "\n")
    return 0


def take_turns(sides: list[Side], rounds: int) -> list[list[list[float]]]:
    """Return the seconds of every update of each side, by clock and by processor; who begins alternates."""
    found: list[list[list[float]]] = [[] for _ in sides]
    for turn in range(rounds):
        for k in sorted(range(len(sides)), reverse=bool(turn % 2)):
            found[k].append(sides[k].update())
    return found


def ratio(seconds: list[list[list[float]]], kind: int) -> float:
    """Return the median over the rounds of what an update took before to what it takes now."""
    return statistics.median(before[kind] / now[kind] for before, now in zip(*seconds, strict=True))


class Side:
    """A process that trains with the code in one folder, an update each time it is asked to."""

    def __init__(
        self, source: Path, asked: argparse.Namespace, settings: list[str], environment: list[str] | None = None
    ) -> None:
        variables = os.environ | {"PYTHONPATH": str(source), "OMP_NUM_THREADS": "1"}
        variables |= dict(item.split("=", 1) for item in environment or [])
        command = [sys.executable, __file__, "--update", asked.preset, str(asked.size or 0), *settings]
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, env=variables)
        self.about = self._answer()

    def _answer(self) -> Any:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit("a process ended early; what it said stands above")
        return json.loads(line)

    def update(self) -> list[float]:
        """Return the seconds of one update, by clock and by processor."""
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        answer: list[float] = self._answer()
        return answer

    def end(self) -> None:
        """End the process."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()


def serve(preset: str, size: int, settings: list[str]) -> None:
    """Make an update for every line of standard input, and print what it took. Names are those of any commit."""
    import torch

    from flowmo import config as configs
    from flowmo.data import Batch
    from flowmo.presets import PRESETS
    from flowmo.provenance import code_version
    from flowmo.tokenizer import FlowMo
    from flowmo.training import TrainConfig, loop, start
    from flowmo.training.processes.distributed import World

    model, train = PRESETS[preset](), configs.override(TrainConfig(), settings)
    if size and size != model.image_size:
        transform = getattr(model, "transform", None)
        patch = transform.patch_size if transform else model.encoder.patch_size
        model = dataclasses.replace(model, image_size=size, num_tokens=(size // patch) ** 2)
    lpips = _of_any("flowmo.profiling.memory", "flowmo.training.memory", "untrained_lpips")
    machine = _of_any("flowmo.provenance", "flowmo.evaluation.speed", "machine")
    torch.manual_seed(0)
    world = World(device=torch.device("cpu"))
    stage, ready, state, meter = start.assemble(FlowMo(model), train, world, lpips("vgg"))
    have = {"folder": Path(), "config": train, "stage": stage, "kind": getattr(start, "TOKENIZER", None)}
    have |= {"ready": ready, "state": state, "world": world, "meter": meter}
    asked = [f.name for f in dataclasses.fields(loop.Run) if f.init]
    if "stage" not in asked:  # of v0.1.0
        have["step"] = stage
    run = loop.Run(**{name: have[name] for name in asked if name in have})
    count = train.batch_size
    pixels = torch.randint(0, 256, (count, 3, model.image_size, model.image_size), dtype=torch.uint8)
    batch = Batch(pixels, None, list(range(count)), [str(k) for k in range(count)], [], count)
    needed = [p for p in inspect.signature(run.update).parameters.values() if p.default is p.empty]
    more = [[False] * 4 for _ in needed[1:]]  # v0.1.0 has one argument more
    for _ in range(2):
        run.update(batch, *more)
    print(json.dumps({"machine": machine(world.device), "code": code_version()}), flush=True)
    for _ in sys.stdin:
        began = time.perf_counter(), time.process_time()
        run.update(batch, *more)
        print(json.dumps([time.perf_counter() - began[0], time.process_time() - began[1]]), flush=True)


def _of_any(module: str, before: str, name: str) -> Any:
    """Return what a module has by this name, or the module where v0.1.0 has it."""
    try:
        return getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError):
        return getattr(importlib.import_module(before), name)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--update"]:
        sys.exit(serve(sys.argv[2], int(sys.argv[3]), sys.argv[4:]))
    sys.exit(main())
