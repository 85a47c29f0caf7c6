"""Runs as users start them: real photographs, the tiny model, no LPIPS."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import warm_python

BATCH, STEPS = 8, 40
SETTINGS = {
    "images": BATCH * STEPS,
    "batch_size": BATCH,
    "learning_rate": 1e-3,
    "warmup_images": 40,
    "cooldown_images": 80,
    "losses.perceptual": 0,
    "precision": "fp32",
    "log_steps": 1,
    "validate_every": 200,
    "checkpoint_minutes": 0,  # after every step
    "keep": 3,
    "workers": 1,
}
SELDOM = {"checkpoint_minutes": 10}  # for the end of a run whose checkpoints nobody looks at: one takes 0.2 s
CLOCK = ("images_per_s", "hours_left", "data_wait", "memory_mb", "utilisation", "checkpoint_seconds", "checkpoint_wait")


def command(data: Path, out: Path, *more: str, **settings: object) -> list[str]:
    values = [f"{name}={value}" for name, value in (SETTINGS | settings).items()]
    return [
        "train",
        str(data),
        str(out),
        "--preset",
        "tiny",
        "--recipe",
        "none",
        "--device",
        "cpu",
        *more,
        "--set",
        *values,
    ]


def start(arguments: list[str], *launcher: str) -> subprocess.Popen[str]:
    """``flowmo`` as a process of its own; launcher: arguments of torchrun, for several."""
    begin = ["-m", "torch.distributed.run", *launcher, "-m", "flowmo"] if launcher else ["-m", "flowmo"]
    return _process([warm_python.python(), *begin, *arguments])


def start_several(commands: list[list[str]], *launcher: str) -> subprocess.Popen[str]:
    """The same for several commands one after the other."""
    return start_script("several.py", *map(json.dumps, commands), launcher=launcher)


def start_script(name: str, *arguments: str, launcher: tuple[str, ...]) -> subprocess.Popen[str]:
    """Processes that run a file of this folder."""
    script = [str(Path(__file__).with_name(name)), *arguments]
    return _process([warm_python.python(), "-m", "torch.distributed.run", *launcher, *script])


def _process(words: list[str]) -> subprocess.Popen[str]:
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    return subprocess.Popen(words, env=warm_python.environment(), **pipes)


def finish(process: subprocess.Popen[str], code: int = 0, timeout: int = 240) -> str:
    try:
        output, _ = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        process.terminate()  # torchrun takes its processes with it
        raise AssertionError(f"not done after {timeout} s: {process.communicate(timeout=90)[0]}") from None
    assert process.returncode == code, output
    return output


def wait_for_step(process: subprocess.Popen[str], folder: Path, step: int) -> None:
    """Until the log tells of this step and a checkpoint is there."""
    deadline = time.monotonic() + 240
    while not (list(folder.glob("checkpoint-*")) and max(log_of(folder), default=0) >= step):
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline, "no progress"
        time.sleep(0.02)


def kill(process: subprocess.Popen[str]) -> None:
    process.send_signal(signal.SIGKILL)
    process.communicate()


def lines_of(folder: Path) -> list[dict[str, Any]]:
    path, lines = folder / "log.jsonl", []
    for line in path.read_text().splitlines() if path.exists() else []:
        try:
            lines.append(json.loads(line))
        except ValueError:  # being written
            continue
    return lines


def log_of(folder: Path) -> dict[int, dict[str, Any]]:
    """Log lines by step, without the clock's; a step that was done twice counts as it was the last time."""
    return {x["step"]: {k: v for k, v in x.items() if k not in CLOCK} for x in lines_of(folder) if "step" in x}


def checkpoints_of(folder: Path) -> list[Path]:
    return sorted(folder.glob("checkpoint-*"))
