"""Many images of classes in one file (Table 2 has 50,000), by several processes, killed and resumed.

While they are made, each batch of them is an array in a hidden folder beside the file, named by the first of its
images; what is there is not made again, whatever the number of processes.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import zipfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ..config import to_dict
from ..data import to_image
from ..errors import ConfigError
from ..files import only_one, replacing
from ..image_utils.regular import check_regular
from ..provenance import weights_checksum
from ..training.processes.distributed import World
from .class_images import ImageGenerator, Order, SampledImages, sample


def write_many(
    source: ImageGenerator, order: Order, world: World, on_done: Callable[[int], None] = lambda count: None
) -> dict[str, list[Image.Image]]:
    """Write the ``.npz`` of an order, and its single images where they have a folder.

    The first ones of each class are returned, for a grid.

    Processes share the images; a call that was killed goes on where it was when it is made again with the same weights
    and settings, and begins again with others. on_done: told numbers of images of this process that are done, and on
    the first those that were there. Raises ConfigError where another process makes the same file.
    """
    assert order.npz is not None
    folder = order.npz.with_name(f".{order.npz.name}.parts")
    lock = order.npz.with_name(f".{order.npz.name}.lock")
    images = SampledImages(source, order)
    with only_one(lock) if world.main else contextlib.nullcontext(True) as alone:
        missing: list[range] | None = None
        if world.main and alone:
            size = (order.size, order.size) if order.size else source.generator.config.tokens.image_size
            missing = _missing(_prepare(folder, _job(source, order), size, len(order.each)), order.batch_size)
            on_done(len(order.each) - sum(map(len, missing)))
        missing = world.share(missing)
        if missing is None:
            raise ConfigError(f"another process writes {order.npz}; wait for it")
        for places in missing[world.rank :: world.size]:
            _make(source, order, places, folder / f"{places.start:08d}.npy")
            on_done(len(places))
        world.wait()
        if world.main:
            write_npz(order.npz, _parts(folder), order.each)
            place = 0
            for pixels in _parts(folder) if order.folder else ():
                for image in pixels:
                    images.add(place, Image.fromarray(np.array(image)))
                    place += 1
            shutil.rmtree(folder, ignore_errors=True)
            lock.unlink(missing_ok=True)
    return images.rows


def write_npz(path: Path, parts: Iterator[np.ndarray], labels: Sequence[int]) -> None:
    """Write samples as guided diffusion's evaluator reads them: ``arr_0`` uint8 N H W 3, and ``arr_1``, their labels.

    parts: uint8 n H W 3 each, together one for each label; one is in memory at a time.
    """
    first = next(parts)
    header = {"descr": "|u1", "fortran_order": False, "shape": (len(labels), *first.shape[1:])}
    with replacing(path) as part, zipfile.ZipFile(part, "w", allowZip64=True) as archive:
        with archive.open("arr_0.npy", "w", force_zip64=True) as file:
            np.lib.format.write_array_header_1_0(file, header)  # type: ignore[arg-type]
            file.write(first.tobytes())
            for pixels in parts:
                file.write(pixels.tobytes())
        with archive.open("arr_1.npy", "w") as file:
            np.lib.format.write_array(file, np.array(labels))


def _job(source: ImageGenerator, order: Order) -> dict[str, Any]:
    """Return all that an image depends on beside its place."""
    return {
        "generator": weights_checksum(source.generator),
        "tokenizer": weights_checksum(source.tokenizer),
        "sampler": to_dict(source.tokenizer.config.sampler),
        "decoder": order.decoder,
        "settings": to_dict(order.settings),
        "images": [order.labels, order.count, order.seed, order.size],
    }


def _prepare(folder: Path, job: dict[str, Any], size: tuple[int, int], count: int) -> np.ndarray:
    """Make the folder of parts, or take the one of the same job that is there; whether each image is there, (N,).

    size: (height, width) of the images.
    """
    about, done = folder / "job.json", np.zeros(count, bool)
    try:
        check_regular(about)
        same = json.loads(about.read_text()) == json.loads(json.dumps(job))
    except (OSError, ValueError):
        same = False
    if not same:
        shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True, exist_ok=True)
    for path in folder.glob("*.npy"):
        try:
            check_regular(path)
            shape = np.load(path, mmap_mode="r", allow_pickle=False).shape
        except (OSError, ValueError, EOFError):  # damaged
            shape = ()
        if shape[1:] == (*size, 3):
            done[int(path.stem) : int(path.stem) + shape[0]] = True
        else:
            path.unlink()
    with replacing(about) as part:
        part.write_text(json.dumps(job))
    return done


def _missing(done: np.ndarray, batch_size: int) -> list[range]:
    """Return what is to be made, in batches that end at multiples of the batch size.

    So each image has the company that it has in a call that is never killed.
    """
    batches, start = [], 0
    for place in range(1, len(done) + 1):
        if place == len(done) or place % batch_size == 0 or done[place] != done[start]:
            if not done[start]:
                batches.append(range(start, place))
            start = place
    return batches


def _make(source: ImageGenerator, order: Order, places: range, path: Path) -> None:
    pixels = [np.asarray(to_image(image)) for images in sample(source, order, places) for image in images]
    with replacing(path) as part, part.open("wb") as file:
        np.save(file, np.stack(pixels))


def _parts(folder: Path) -> Iterator[np.ndarray]:
    for path in sorted(folder.glob("*.npy")):
        yield np.load(path, allow_pickle=False)
