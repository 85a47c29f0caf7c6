"""The state of a run on disk: everything that a resumed run needs to go on exactly, on any number of processes.

A checkpoint is a folder, ``checkpoint-<images>``: tensors as torch.distributed.checkpoint writes them, one file a
process, and ``checkpoint.json`` with the configuration, the counters and the SHA-256 of every file. It is written under
another name and renamed once whole.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import re
import shutil
import sys
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed.checkpoint as dcp
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.distributed.checkpoint.api import CheckpointException

from ...config import FlowMoConfig, from_dict, to_dict
from ...errors import ConfigError, TrainingError
from ...files import sync_folder
from ..configuration.config import TrainConfig
from ..configuration.run_config import RunConfig
from ..configuration.stored_config import stored_config
from ..optimization.state import TrainState
from ..processes.distributed import World, local
from .stored_tensors import DATA_FILE, TABLE, TensorPlanner, TensorReader, read_table

FORMAT = "flowmo-checkpoint-3"
UNSIGNED = "flowmo-checkpoint-2"
"""Of 0.1.0, whose manifest has no checksum of its own."""
ABOUT, METER = "checkpoint.json", "meter.safetensors"
AFTER_DIVERGENCE = (
    "Run the same command to go on from the last checkpoint; if it happens again, lower learning_rate, set "
    "gradient_clip=0.5 or precision=fp32"
)
CHECKSUM, MAX_ABOUT = "sha256", 2**24
_COUNTERS = ("step", "images_seen", "skipped", "broken_images")


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint that was found whole."""

    path: Path  # its folder
    about: dict[str, Any]  # what ``checkpoint.json`` says
    kind: type[RunConfig] = TrainConfig  # of its configuration

    @property
    def train_config(self) -> RunConfig:
        """Return the settings of the run that wrote it."""
        return stored_config(self.kind, self.about["train_config"])

    def meter(self, device: torch.device) -> dict[str, Tensor]:
        """Return the stored sums for the next line of the log."""
        return load_file(self.path / METER, device=str(device))

    def restore(self, state: TrainState, world: World, moments: bool = True) -> None:
        """Fill a state that was started for the same model, whatever the number of processes that wrote this one.

        moments: False leaves the optimizer's as they are, fresh (A14). Raises TrainingError when it does not fit.
        """
        tensors = state.tensors(moments)
        try:
            with _quiet():
                reader = TensorReader(self.path, self.about["files"])
                dcp.load(tensors, storage_reader=reader, planner=TensorPlanner(), no_dist=world.size == 1)
        except (Exception, CheckpointException) as error:  # of any kind, where a stranger wrote it
            raise TrainingError(f"{self.path} does not fit this run: {_first_line(error)}") from None
        for name in _COUNTERS:
            setattr(state, name, self.about[name])


def save_checkpoint(
    folder: Path,
    state: TrainState,
    config: RunConfig,
    world: World,
    about: dict[str, Any] | None = None,
    meter: dict[str, Tensor] | None = None,
) -> Path:
    """Write the checkpoint of this moment, then remove all but the newest ``config.keep``. Every process must call it.

    about: more for ``checkpoint.json``. meter: sums for the next line of the log. Raises TrainingError, and leaves the
    earlier ones, when the disk is full or a weight is not finite.
    """
    content = content_of(state, config, world, about)
    return write_checkpoint(folder, state.tensors(), content, world, meter, config.keep)


def content_of(
    state: TrainState, config: RunConfig, world: World, about: dict[str, Any] | None = None
) -> dict[str, Any]:
    """Return what ``checkpoint.json`` is to say of this moment. Every process must call it.

    Raises TrainingError where a weight is not finite.
    """
    finite = all(local(p).isfinite().all() for p in state.model.parameters())
    if world.largest([float(not finite)])[0]:
        raise TrainingError(f"a weight is no longer finite at step {state.step}: nothing saved. {AFTER_DIVERGENCE}")
    return {
        "format": FORMAT,
        **{name: getattr(state, name) for name in _COUNTERS},
        "trains": config.trains,
        "train_config": to_dict(config),
        "torch": str(torch.__version__),
        "processes": world.size,
        **(about or {}),
    }


def write_checkpoint(
    folder: Path,
    tensors: dict[str, Tensor],
    content: dict[str, Any],
    world: World,
    meter: dict[str, Tensor] | None = None,
    keep: int = 2,
) -> Path:
    """Write a checkpoint of ``tensors``, then remove all but the newest ``keep``.

    Every process must call it, each with its shards; a tensor that all have whole may be given by any of them. Each
    reads back and hashes what it wrote, once. Raises TrainingError as :func:`save_checkpoint`.
    """
    path = folder / f"checkpoint-{content['images_seen']:010d}"
    part = folder / f".{path.name}.part"
    failed: BaseException | None = None
    try:
        if world.main:
            shutil.rmtree(part, ignore_errors=True)
            part.mkdir()
    except OSError as error:
        failed = error
    _all_well(failed, path, world)
    try:
        with _quiet():
            # Copied ahead is nothing: that would ask for a GPU even where all is in main memory.
            writer = dcp.FileSystemWriter(part, per_thread_copy_ahead=0)
            dcp.save(tensors, storage_writer=writer, process_group=world.group, no_dist=world.size == 1)
        digests = world.gather({p.name: _digest(p) for p in sorted(part.glob(f"__{world.rank}_*"))})
        if world.main:
            files = {name: digest for each in digests for name, digest in each.items()}
            save_file(meter or {}, part / METER)
            (part / METER).chmod((part / TABLE).stat().st_mode & 0o777)
            files |= {name: _digest(part / name) for name in (TABLE, METER)}
            content = json.loads(json.dumps(content | {"files": files}))
            (part / ABOUT).write_text(json.dumps(content | {CHECKSUM: _checksum(content)}, indent=1) + "\n")
            _put(part, path)
    except (OSError, CheckpointException, RuntimeError) as error:
        failed = error
    try:
        _all_well(failed, path, world)
    except TrainingError:
        if world.main:
            shutil.rmtree(part, ignore_errors=True)
        raise
    if world.main:
        for old in checkpoints(folder)[:-keep]:
            _remove(old)
    return path


def _all_well(failed: BaseException | None, path: Path, world: World) -> None:
    """Raise TrainingError in every process when writing failed in one."""
    if world.largest([float(failed is not None)])[0]:
        reason = _first_line(failed) if failed else "another process says why"
        raise TrainingError(f"no checkpoint could be written to {path} ({reason}); earlier ones are intact")


def checkpoints(folder: Path) -> list[Path]:
    """Return the checkpoints in a folder, oldest first."""
    return sorted(p for p in folder.glob("checkpoint-*") if re.fullmatch(r"checkpoint-\d{10}", p.name))


def read_about(path: Path) -> dict[str, Any]:
    """Return what ``checkpoint.json`` of a checkpoint says, as it was written, every number in its range.

    Raises TrainingError for a damaged or foreign one.
    """
    try:
        file = path / ABOUT
        if not file.is_file() or file.stat().st_size > MAX_ABOUT:
            raise ValueError(f"{ABOUT} is missing, or too large")
        about = json.loads(file.read_text(encoding="utf-8"))
        if about["format"] not in (FORMAT, UNSIGNED):
            raise ValueError(f"format {about['format']!r}")
        signed = about.pop(CHECKSUM, None)
        if signed != (_checksum(about) if about["format"] == FORMAT else None):
            raise ValueError(f"{ABOUT} is not as it was written")
        _check_about(about, path.name)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise TrainingError(f"{path} is damaged: {_first_line(error)}") from None
    return about  # type: ignore[no-any-return]


def read_checkpoint(path: Path, world: World | None = None, kind: type[RunConfig] = TrainConfig) -> Checkpoint:
    """Return a checkpoint of a run of this kind, of which every byte is as it was written.

    Raises TrainingError for any other.
    """
    world = world or World()

    def first() -> dict[str, Any] | str:
        try:
            return read_about(path)
        except TrainingError as error:
            return _first_line(error)

    def check(about: dict[str, Any]) -> dict[str, Any] | str:
        try:
            trains = about.get("trains", TrainConfig.trains)
            if trains != kind.trains:
                return f"{path} is of a run that trains a {trains}, not a {kind.trains}"
            stored_config(kind, about["train_config"])
            if trains == TrainConfig.trains and "model_config" in about:
                from_dict(FlowMoConfig, about["model_config"])
            read_table(path, about["files"])
            load_file(path / METER)
        except TrainingError as error:
            return _first_line(error)
        except ConfigError as error:
            return f"{path} is whole, but another version of FlowMo wrote it: {_first_line(error)}"
        except Exception as error:  # whatever it is, the checkpoint before may be whole
            return f"{path} is damaged: {_first_line(error)}"
        return about

    found = world.share(first() if world.main else None)
    if isinstance(found, str):
        raise TrainingError(found)
    own = sorted(found["files"].items())[world.rank :: world.size]  # each process hashes some
    wrong = world.gather([name for name, digest in own if not _is_whole(path / name, digest)])
    damaged = [name for each in wrong for name in each]
    if damaged:
        raise TrainingError(f"{path} is damaged: {damaged[0]} is not as it was written")
    found = world.share(check(found) if world.main else None)
    if isinstance(found, str):
        raise TrainingError(found)
    return Checkpoint(path, found, kind)


def verify_checkpoint(path: Path) -> None:
    """Read every byte of a checkpoint, whatever it trains, and compare it with its checksums.

    Raises TrainingError where one is not as it was written.
    """
    files = read_about(path)["files"]
    damaged = [name for name, digest in sorted(files.items()) if not _is_whole(path / name, digest)]
    if damaged:
        raise TrainingError(f"{path} is damaged: {', '.join(damaged)} is not as it was written")


def read_newest(folder: Path, world: World | None = None, kind: type[RunConfig] = TrainConfig) -> Checkpoint | None:
    """Return the newest checkpoint that is whole, or None where there is none.

    One that is damaged, or of another version, is named and passed over.
    Raises TrainingError when there are checkpoints and none can be read, or of a format that is read no more.
    """
    world = world or World()
    found = world.share(checkpoints(folder))
    for path in reversed(found):
        try:
            return read_checkpoint(path, world, kind)
        except TrainingError as error:
            if world.main:
                print(f"passed over: {error}", file=sys.stderr)
    if found:
        raise TrainingError(
            f"no checkpoint in {folder} can be used, for the reasons above; go on with the version that wrote them, or "
            f"start a run in another folder from their weights (--init {folder}), or remove them to begin again"
        )
    if list(folder.glob("checkpoint-*.pt")):
        raise TrainingError(
            f"the checkpoints in {folder} have an older format, from which no run goes on; start one in another folder "
            f"from their weights: --init {folder}"
        )
    return None


def tidy(folder: Path) -> None:
    """Remove what a kill in the middle of writing left behind. Only the process with the folder's lock may call it."""
    for part in [*folder.glob(".checkpoint-*.part"), *folder.glob(".checkpoint-*.old")]:
        shutil.rmtree(part, ignore_errors=True)


def _put(part: Path, path: Path) -> None:
    """Give a whole checkpoint its name, in place of one of that name if need be."""
    sync_folder(part)
    old = _aside(path) if path.exists() else None
    part.rename(path)
    sync_folder(path.parent)
    if old:
        shutil.rmtree(old, ignore_errors=True)


def _remove(path: Path) -> None:
    """Remove a checkpoint in two steps, so that none that is half removed ever bears a checkpoint's name."""
    shutil.rmtree(_aside(path), ignore_errors=True)


def _aside(path: Path) -> Path:
    old = path.with_name(f".{path.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    return path.rename(old)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep PyTorch from saying that a single process is a single process, and what we say in an error."""
    disabled = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "torch.distributed is disabled, unavailable or uninitialized")
            yield
    finally:
        logging.disable(disabled)


def _check_about(about: dict[str, Any], name: str) -> None:
    """Raise ValueError or TypeError for a manifest with numbers, or names of files, that no run writes."""
    for counter in _COUNTERS:
        value = about[counter]
        if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 10**10:
            raise ValueError(f"{counter} is {str(value)[:40]}")
    if re.fullmatch(r"checkpoint-\d{10}", name) and int(name[-10:]) != about["images_seen"]:
        raise ValueError(f"it says {about['images_seen']} images, its name another number")
    for key, kind in (("train_config", dict), ("model_config", dict), ("files", dict), ("encoder_frozen", bool)):
        if not isinstance(about.get(key, kind()), kind):
            raise TypeError(f"{key} is no {kind.__name__}")
    for file, digest in about["files"].items():
        if file not in (TABLE, METER) and not DATA_FILE.fullmatch(file):
            raise ValueError(f"it lists a file {file[:40]!r}, which no checkpoint has")
        if not isinstance(digest, str) or not re.fullmatch("[0-9a-f]{64}", digest):
            raise ValueError(f"the checksum of {file} is none")
    if TABLE not in about["files"] or METER not in about["files"]:
        raise ValueError("its list of files is not whole")


def _checksum(about: dict[str, Any]) -> str:
    """Return the checksum of the rest of the manifest, whatever the order and the spaces it is written in."""
    return hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()


def _is_whole(path: Path, digest: str) -> bool:
    try:
        return path.is_file() and _digest(path) == digest
    except OSError:
        return False


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _first_line(error: BaseException) -> str:
    if isinstance(error, CheckpointException) and error.failures:
        error = next(iter(error.failures.values()))[0]
    lines = [line for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__
