"""Kill a training at random instants, again and again, and compare it with one that nothing interrupted.

    python tools/kill_and_resume.py DATA OUT [--times 20] [--longest 20] [--seed 0] [-- more arguments of flowmo train]

Two runs of the same command: one is left alone, the other gets SIGKILL a random while after each of its first
``times`` starts, every other time counted from when it trains again (so it starts, computes, or writes a checkpoint),
and is then left to finish. Every number of their
logs, but for the clock's, and every one of their weights must be the same. Exit code 1 where they are not.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import time
from pathlib import Path

import torch
from safetensors.torch import load_file

CLOCK = {"images_per_s", "hours_left", "data_wait", "memory_mb", "utilisation"}
SMALL = ["--preset", "tiny", "--device", "cpu"]
SETTINGS = ["images=16000", "batch_size=8", "losses.perceptual=0", "checkpoint_minutes=0.05", "log_steps=1"]


def train(data: str, out: Path, more: list[str]) -> list[str]:
    return [sys.executable, "-m", "flowmo", "train", data, str(out), *(more or [*SMALL, "--set", *SETTINGS])]


def log_of(folder: Path) -> list[dict[str, object]]:
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    lines = [line for line in lines if "checkpoint_seconds" not in line]  # of which a kill may lose one
    return [{name: value for name, value in line.items() if name not in CLOCK} for line in lines]


def wait_until_it_trains(process: subprocess.Popen[bytes], folder: Path) -> None:
    """Until its log grows. Where it goes on, the log is first cut to what its checkpoint has seen."""
    log, shortest = folder / "log.jsonl", float("inf")
    while process.poll() is None:
        size = log.stat().st_size if log.exists() else 0
        shortest = min(shortest, size)
        if size > shortest:
            return
        time.sleep(0.05)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data")
    parser.add_argument("out", type=Path)
    parser.add_argument("--times", type=int, default=20, help="kills (default: 20)")
    parser.add_argument("--longest", type=float, default=20, help="seconds before one, at most (default: 20)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("more", nargs="*", help="arguments of flowmo train instead of those of a small quick run")
    arguments = parser.parse_intermixed_args()
    instants = random.Random(arguments.seed)
    whole, killed = arguments.out / "whole", arguments.out / "killed"
    alone = subprocess.Popen(train(arguments.data, whole, arguments.more), stdout=subprocess.DEVNULL)
    for k in range(arguments.times):
        process = subprocess.Popen(train(arguments.data, killed, arguments.more), stdout=subprocess.DEVNULL)
        if k % 2:
            wait_until_it_trains(process, killed)
        time.sleep(instants.uniform(0, arguments.longest))
        if process.poll() is not None:
            print(f"finished before kill {k + 1}: make the run longer, or the waits shorter")
            return 2
        process.kill()
        process.wait()
        log = (killed / "log.jsonl").read_text().splitlines() if (killed / "log.jsonl").exists() else []
        names = sorted(path.name for path in killed.glob("*checkpoint-*"))
        print(f"kill {k + 1}: {len(log)} lines of log, {', '.join(names)}", flush=True)
    subprocess.run(train(arguments.data, killed, arguments.more), stdout=subprocess.DEVNULL, check=True)
    if alone.wait():
        return 2
    ours, theirs = log_of(killed), log_of(whole)
    a, b = (load_file(folder / "model.safetensors") for folder in (killed, whole))
    same_weights = a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)
    differ = [a for a, b in zip(ours, theirs, strict=False) if a != b]
    weights = "the same" if same_weights else "DIFFER"
    print(f"{len(theirs)} lines of log, {len(differ)} of them differ; weights {weights}")
    return 0 if ours == theirs and same_weights else 1


if __name__ == "__main__":
    sys.exit(main())
