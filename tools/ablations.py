"""Train and measure the paper's ablations, then gather their numbers; see runs/ablations.sh.

    python tools/ablations.py run DATA OUT [--preset NAME] [--seeds 3] [--jobs 1] [--device cpu]
    python tools/ablations.py gather OUT results/ablations.json [--preset NAME]

run does what is left of it, `--jobs` commands at a time, and may be killed and given again. gather takes what there is.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from pathlib import Path
from queue import SimpleQueue

from flowmo.errors import FlowMoError
from flowmo.experiments.ablation_results import gather
from flowmo.experiments.ablations import Scale, Step, lab_scale, small_scale, steps
from flowmo.files import replacing

SMALL = "small"


def scale_of(arguments: argparse.Namespace) -> Scale:
    if arguments.preset != SMALL:
        return lab_scale(arguments.preset)
    return small_scale(arguments.images, arguments.post_images, arguments.count)


def run(arguments: argparse.Namespace) -> int:
    out, started = arguments.out, time.monotonic()
    left = steps(scale_of(arguments), arguments.data, out, range(arguments.seeds), arguments.device)
    if arguments.only:
        left = [step for step in left if step.of in arguments.only]
    if arguments.dry_run:
        print(*("flowmo " + " ".join(step.words) for step in left), sep="\n")
        return 0
    for name in ("logs", "done"):
        (out / name).mkdir(parents=True, exist_ok=True)
    done = {step.name for step in left if (out / "done" / file_name(step)).exists()}
    left = [step for step in left if step.name not in done]
    failed: set[str] = set()
    places: SimpleQueue[int] = SimpleQueue()
    for place in range(arguments.jobs):
        places.put(place)
    with ThreadPoolExecutor(arguments.jobs) as pool:
        running: dict[Future[int], Step] = {}
        while left or running:
            lost = [step for step in left if failed & set(step.after)]
            failed |= {step.name for step in lost}
            left = [step for step in left if step not in lost]
            ready = [step for step in left if done >= set(step.after)][: arguments.jobs - len(running)]
            left = [step for step in left if step not in ready]
            running |= {pool.submit(execute, step, arguments, places): step for step in ready}
            if not running:
                continue
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                step = running.pop(future)
                (done if future.result() == 0 else failed).add(step.name)
                state = "done" if step.name in done else f"FAILED, see {out / 'logs' / file_name(step)}"
                hours = (time.monotonic() - started) / 3600
                print(f"{step.name}: {state}; {len(left) + len(running)} left, {hours:.2f} h", flush=True)
    return 1 if failed else 0


def execute(step: Step, arguments: argparse.Namespace, places: SimpleQueue[int]) -> int:
    """Return the exit code of one command, run on a processor or GPU of its own."""
    place, environment = places.get(), dict(os.environ)
    try:
        if arguments.device == "cuda":
            environment["CUDA_VISIBLE_DEVICES"] = str(place % max(1, arguments.gpus))
        else:
            environment.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // arguments.jobs)))
        with (arguments.out / "logs" / file_name(step)).open("ab") as log:
            command = [environment.get("PYTHON", sys.executable), "-m", "flowmo", *step.words]
            code = subprocess.run(command, env=environment, stdout=log, stderr=log, check=False).returncode
        if code == 0:
            (arguments.out / "done" / file_name(step)).touch()
        return code
    finally:
        places.put(place)


def file_name(step: Step) -> str:
    return step.name.replace(" ", "-")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True, dest="command")
    work, collect = commands.add_parser("run"), commands.add_parser("gather")
    work.add_argument("data")
    work.add_argument("out", type=Path)
    work.add_argument("--jobs", type=int, default=1, help="commands at a time")
    work.add_argument("--gpus", type=int, default=1, help="that they take turns on, with --device cuda")
    work.add_argument("--device", default="cpu")
    work.add_argument("--only", nargs="+", metavar="MODEL", help="train and measure these alone")
    work.add_argument("--dry-run", action="store_true", help="print the commands")
    collect.add_argument("out", type=Path)
    collect.add_argument("result", type=Path)
    for each in (work, collect):
        each.add_argument("--preset", default=SMALL, help=f"{SMALL}, or a preset, by the published settings")
        each.add_argument("--seeds", type=int, default=3)
        each.add_argument("--images", type=int, default=12_288, help=f"of a training of {SMALL}")
        each.add_argument("--post-images", type=int, default=2_048, help=f"of a post-training of {SMALL}")
        each.add_argument("--count", type=int, default=400, help=f"images that {SMALL} is measured on")
    arguments = parser.parse_args()
    try:
        if arguments.command == "run":
            return run(arguments)
        with replacing(arguments.result) as part:
            found = gather(scale_of(arguments), arguments.out, range(arguments.seeds))
            part.write_text(json.dumps(found, indent=1) + "\n")
        return 0
    except FlowMoError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    raise SystemExit(main())
