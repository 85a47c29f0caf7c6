"""The folder of a run: one process at a time writes there, and only what runs make."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from ...config import to_json
from ...errors import TrainingError
from ...files import only_one, replacing
from ...image_utils.regular import NotRegularError, check_regular
from ..monitoring.logs import NAME as LOG
from ..processes.distributed import World
from .checkpoint import checkpoints, tidy

CONFIG, WEIGHTS = "config.json", "model.safetensors"


@contextlib.contextmanager
def run_folder(folder: Path, world: World) -> Iterator[None]:
    """Hold the run's folder for this run alone. Every process must call it.

    Raises TrainingError where another process trains there, or where a run would overwrite files that no run made.
    """
    trouble = None
    with contextlib.ExitStack() as stack:
        if world.main:
            foreign = [name for name in (WEIGHTS, CONFIG) if (folder / name).exists()]
            trouble = _special_file(folder)
            if trouble:
                pass
            elif foreign and not (folder / LOG).exists() and not checkpoints(folder):
                trouble = f"{folder} holds {' and '.join(foreign)} that no run made there; give another folder"
            elif not stack.enter_context(only_one(folder / ".lock")):
                trouble = f"another process trains in {folder}; wait for it, or give another folder"
            else:
                tidy(folder)
                (folder / LOG).touch()
        trouble = world.share(trouble)
        if trouble:
            raise TrainingError(trouble)
        yield


def _special_file(folder: Path) -> str | None:
    """Return what is wrong where the folder, or a checkpoint in it, holds a pipe or the like; None where nothing is."""
    for place in (folder, *checkpoints(folder)):
        for path in sorted(place.iterdir()) if place.is_dir() else ():
            try:
                check_regular(path)
            except NotRegularError as error:
                return f"{path}: {error}; remove it, or give another folder"
            except OSError:  # such as of a broken link, which is no file either, and is not waited for
                continue
    return None


def write_config(folder: Path, model: object, train: object) -> None:
    """Write the configurations of the model and of its training to ``config.json``."""
    with replacing(folder / CONFIG) as part:
        part.write_text(f'{{"model": {to_json(model)},\n"train": {to_json(train)}}}\n')
