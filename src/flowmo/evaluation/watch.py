"""A training in progress is evaluated as it goes, each new file of weights once, a line each (beside Section 4.2)."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from ..errors import ConfigError, WeightsError
from ..image_utils.regular import check_regular
from ..provenance import weights_checksum
from ..tokenizer import FlowMo
from ..weights import load, read_about
from .result_store import append_line, read_lines

WEIGHTS = "model.safetensors"


class Snapshot(NamedTuple):
    """A model of a training in progress."""

    model: FlowMo  # on the device that evaluates
    images: int  # seen in training
    sha256: str  # provenance.weights_checksum
    finished: bool  # whether training has come to its end


def snapshots(
    folder: Path,
    device: str,
    known: Callable[[str], bool],
    every: float = 5.0,
    sleep: Callable[[float], None] = time.sleep,
) -> Iterator[Snapshot]:
    """Yield each new ``model.safetensors`` of the run in ``folder``, that of the finished run last.

    known: whether a checksum is known; such a model is left out.
    every: seconds between two glances at the file.
    Raises ConfigError for a folder that is no run's.
    """
    weights, seen = folder / WEIGHTS, None
    while True:
        stamp = _stamp(weights)
        if stamp is not None and stamp != seen:
            try:
                about, model = read_about(weights), load(weights, device=device)
            except WeightsError:
                if _stamp(weights) == stamp:
                    raise
                continue  # replaced while it was read
            if _stamp(weights) != stamp:
                continue
            seen, images = stamp, int(about.get("images", 0))
            snapshot = Snapshot(model, images, weights_checksum(model), images >= run_length(folder))
            if not known(snapshot.sha256):
                yield snapshot
            if snapshot.finished:
                return
        else:
            sleep(every)


def run_length(folder: Path) -> int:
    """Return how many images a run is to see. Raises ConfigError for a folder that is no run's."""
    try:
        check_regular(folder / "config.json")
        return int(json.loads((folder / "config.json").read_text())["train"]["images"])
    except (OSError, ValueError, KeyError, TypeError):
        raise ConfigError(
            f"{folder} is not the folder of a training run: it has no config.json of one; start the training first, or "
            "evaluate a file without --watch"
        ) from None


class WatchLog:
    """A file of JSON lines, one an evaluation, in the order of training; a line cut off by a kill is dropped."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.lines: list[dict[str, Any]] = []
        try:
            read_lines(path, lambda line: self.lines.append(json.loads(line)))
        except ValueError:
            raise ConfigError(f"{path} holds something else than evaluations; give another --out") from None

    def known(self, sha256: str, protocols: int) -> bool:
        """Return whether weights have a line for every protocol."""
        return sum(line.get("sha256") == sha256 for line in self.lines) >= protocols

    def add(self, line: dict[str, Any]) -> None:
        """Append a line."""
        self.lines.append(line)
        append_line(self.path, line)


def _stamp(path: Path) -> tuple[int, int, int] | None:
    try:
        found = path.stat()
    except FileNotFoundError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino
