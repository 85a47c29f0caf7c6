"""Generated pictures are compared with a reference (Table 2, Appendix B; E8).

It is the statistics of a data set, made once and kept, or a file of ADM's evaluator.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from ..data import ImageSource, adm_crop, fit_image, to_tensor
from ..errors import DataError, ImageError
from ..files import cache_folder, replacing
from ..metrics.features import FeatureNetwork
from ..metrics.statistics import RunningStatistics, Statistics
from ..untrusted import load_arrays
from .evaluate import Alone, Processes
from .results import image_checksums

KEPT = 10_000
"""How many pictures' features are kept for precision and recall; ADM's own reference file has as many."""
_LOOKED_AT = 64
_SAVE_EVERY = 10_000
BATCH = 32
"""How many pictures networks are given at a time."""
ALONE = Alone()

Crop = Literal["model", "adm"]
"""A data set's pictures become squares as the model sees them (C1), or as ADM's reference batches were made."""


@dataclass(frozen=True, eq=False)
class Reference:
    """What generated pictures are compared with."""

    pool: Statistics  # for FID
    spatial: Statistics | None  # for sFID; None where a file has none
    features: np.ndarray | None  # (N, 2048) for precision and recall; None where a file has no pictures
    about: dict[str, Any]  # where they come from, as JSON data


def reference_of(
    source: ImageSource,
    size: int,
    network: FeatureNetwork,
    device: torch.device,
    on_done: Callable[[int], None] = lambda count: None,
    cache: Path | None = None,
    crop: Crop = "model",
    processes: Processes = ALONE,
) -> Reference:
    """Return the reference of every picture that can be read, brought to ``size`` pixels by ``crop``.

    It is read from the cache (FLOWMO_CACHE) where these pictures were measured before. Its key there is content, the
    names of all pictures and the pixels of some of them. A call that was killed goes on where it was.
    on_done: called with a number of pictures that are done.
    processes: those that share the pictures; all of them get the reference.
    Raises DataError without pictures.
    """
    folder = cache or cache_folder() / "statistics"
    path = folder / f"{_key(source, size, network, crop)}.npz"
    reference: Reference | None = processes.share(None if processes.rank or not path.exists() else read_reference(path))
    if reference is not None:
        on_done(len(own_places(len(source), processes)))
        return reference
    _measure(source, size, network, device, on_done, path, crop, processes)
    made: Reference = processes.share(None if processes.rank else read_reference(path))
    return made


def own_places(count: int, processes: Processes) -> range:
    """Return this process's share of ``count`` pictures in a row: whole batches, so that each is one process's too."""
    batches = -(-count // BATCH)
    first, last = (batches * rank // processes.size for rank in (processes.rank, processes.rank + 1))
    return range(first * BATCH, min(last * BATCH, count))


def adm_reference(path: Path, network: FeatureNetwork, device: torch.device, processes: Processes = ALONE) -> Reference:
    """Read a reference batch of ADM's evaluator, or a file of pictures alone, such as samples.

    The batch has ``mu``, ``sigma``, ``mu_s``, ``sigma_s``, and pictures ``arr_0`` for precision and recall.
    processes: those that share the pictures; all of them get the reference.
    Raises DataError for any other file.
    """
    try:
        arrays = load_arrays(path, ("mu", "sigma", "mu_s", "sigma_s", "arr_0"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: not an .npz of ADM's evaluator that can be read ({error})") from None
    if "mu" not in arrays and "arr_0" not in arrays:
        raise DataError(f"{path}: has neither mu and sigma nor pictures arr_0; give a reference of ADM's evaluator")
    found: dict[str, np.ndarray] | None = {}
    if "arr_0" in arrays:
        found = features_of_pixels(check_pixels(arrays["arr_0"], path), network, device, processes=processes)
    made: Reference = processes.share(None if found is None else _adm_reference(path, arrays, found, network))
    return made


def _adm_reference(
    path: Path, arrays: dict[str, np.ndarray], found: dict[str, np.ndarray], network: FeatureNetwork
) -> Reference:
    about = {"file": path.name, "network": network.name}

    def statistics(mean: str, covariance: str, space: str) -> Statistics | None:
        if mean in arrays and covariance in arrays:
            size, kinds = arrays[mean].shape, arrays[mean].dtype.kind + arrays[covariance].dtype.kind
            if kinds != "ff" or len(size) != 1 or arrays[covariance].shape != size * 2:
                raise DataError(f"{path}: {mean} and {covariance} are no mean and covariance of features")
            return Statistics(0, arrays[mean].astype(np.float64), arrays[covariance].astype(np.float64))
        return Statistics.of(found[space]) if space in found else None

    pool = statistics("mu", "sigma", "pool")
    assert pool is not None
    return Reference(pool, statistics("mu_s", "sigma_s", "spatial"), found.get("pool"), about)


def read_reference(path: Path) -> Reference | None:
    """Read a file that :func:`reference_of` wrote, which has the names of ADM's files too; None for a damaged one."""
    try:
        file = load_arrays(path)
        about = json.loads(str(file["about"]))
        pool = Statistics(int(file["count"]), file["mu"], file["sigma"])
        spatial = Statistics(int(file["count"]), file["mu_s"], file["sigma_s"])
        return Reference(pool, spatial, file["pool"], about)
    except (OSError, ValueError, KeyError, TypeError):
        return None


def features_of_pixels(
    pixels: np.ndarray,
    network: FeatureNetwork,
    device: torch.device,
    on_done: Callable[[int], None] = lambda count: None,
    processes: Processes = ALONE,
) -> dict[str, np.ndarray] | None:
    """Return each space's features (N, D) of pixels, uint8 N H W 3.

    on_done: called with a number of pictures that are done.
    processes: those that share the pictures, each of which has all of them; None is returned but in the first.
    """
    spaces: dict[str, list[np.ndarray]] = {}
    for images in pixel_batches(pixels, device, processes):
        for space, values in network(images).items():
            spaces.setdefault(space, []).append(values.cpu().numpy())
        on_done(len(images))
    parts = processes.collect(spaces)
    if parts is None:
        return None
    every = [values for part in parts for values in part.items()]
    return {space: np.concatenate([rows for name, own in every if name == space for rows in own]) for space, _ in every}


def pixel_batches(pixels: np.ndarray, device: torch.device, processes: Processes = ALONE) -> Iterator[Tensor]:
    """Yield this process's share of pixels, uint8 N H W 3, in batches B 3 H W in [-1, 1] on the device."""
    places = own_places(len(pixels), processes)
    for i in range(places.start, places.stop, BATCH):
        part = torch.from_numpy(np.array(pixels[i : min(i + BATCH, places.stop)])).permute(0, 3, 1, 2)
        yield part.to(device).float() / 127.5 - 1


def check_pixels(pixels: np.ndarray, path: Path) -> np.ndarray:
    """Return the pixels themselves. Raises DataError unless they are uint8 N H W 3."""
    if pixels.dtype != np.uint8 or pixels.ndim != 4 or pixels.shape[3] != 3 or 0 in pixels.shape:
        raise DataError(f"{path}: arr_0 must be uint8 n x height x width x 3, got {pixels.dtype} {pixels.shape}")
    return pixels


def _measure(
    source: ImageSource,
    size: int,
    network: FeatureNetwork,
    device: torch.device,
    on_done: Callable[[int], None],
    path: Path,
    crop: Crop,
    processes: Processes,
) -> None:
    """Measure this process's share, and write the reference of all in the first one."""
    name = ".part.npz" if processes.size == 1 else f".{processes.rank}-of-{processes.size}.part.npz"
    part, own = path.with_suffix(name), own_places(len(source), processes)
    pool, spatial = RunningStatistics(), RunningStatistics()
    kept: list[np.ndarray] = []
    saved = _restore(part, pool, spatial, kept) or own.start
    on_done(saved - own.start)
    stride = max(1, len(source) // KEPT)
    for places, images in _batches(source, size, range(saved, own.stop), crop):
        if images:
            batch = torch.stack([image for _, image in images]).to(device)
            found = {space: values.cpu().numpy() for space, values in network(batch).items()}
            pool.add(found["pool"])
            spatial.add(found["spatial"])
            kept.append(found["pool"][[n for n, (p, _) in enumerate(images) if p % stride == 0]])
        on_done(len(places))
        if places.stop - saved >= _SAVE_EVERY and places.stop < own.stop:
            _save(part, pool, spatial, kept, place=np.array(places.stop))
            saved = places.stop
    parts = processes.gather((pool.state(), spatial.state(), kept))
    if not any(int(state["count"]) for state, _, _ in parts):
        raise DataError(f"none of the pictures can be read: {source.describe()}")
    if not processes.rank:
        statistics = [_merged([states[k] for states in parts]) for k in (0, 1)]
        about = {"data": source.describe().rpartition("/")[2], "count": statistics[0].count, "size": size}
        about |= {"network": network.name, "crop": crop, "sha256": network.checksum, "key": path.stem}
        _write(path, statistics[0], statistics[1], [rows for _, _, each in parts for rows in each], about)
    part.unlink(missing_ok=True)


def _merged(states: list[dict[str, np.ndarray]]) -> Statistics:
    whole = RunningStatistics()
    for state in states:
        one = RunningStatistics()
        one.restore(state)
        whole.merge(one)
    return whole.statistics()


def _write(path: Path, p: Statistics, s: Statistics, kept: list[np.ndarray], about: dict[str, Any]) -> None:
    with replacing(path) as temporary, temporary.open("wb") as file:
        np.savez(
            file,
            mu=p.mean,
            sigma=p.covariance,
            mu_s=s.mean,
            sigma_s=s.covariance,
            pool=np.concatenate(kept)[:KEPT],
            count=np.array(p.count),
            about=np.array(json.dumps(about)),
        )


def _batches(
    source: ImageSource, size: int, own: range, crop: Crop
) -> Iterator[tuple[range, list[tuple[int, Tensor]]]]:
    for i in range(own.start, own.stop, BATCH):
        places, images = range(i, min(i + BATCH, own.stop)), []
        for place in places:
            try:
                images.append((place, prepared(source, place, size, crop)))
            except ImageError:
                continue
        yield places, images


def prepared(source: ImageSource, place: int, size: int, crop: Crop = "model") -> Tensor:
    """Return a picture as a model of that size sees it, or by ADM's crop, 3 size size in [-1, 1].

    Raises ImageError for a picture that cannot be read.
    """
    image = source[place]
    return to_tensor(adm_crop(image, size) if crop == "adm" else fit_image(image, size, size))


def _save(path: Path, pool: RunningStatistics, spatial: RunningStatistics, kept: list, **more: np.ndarray) -> None:
    arrays = {f"pool_{k}": v for k, v in pool.state().items()} | {f"spatial_{k}": v for k, v in spatial.state().items()}
    with replacing(path) as temporary, temporary.open("wb") as file:
        np.savez(file, kept=np.concatenate(kept), **arrays, **more)  # type: ignore[arg-type]


def _restore(path: Path, pool: RunningStatistics, spatial: RunningStatistics, kept: list[np.ndarray]) -> int:
    """Restore what a killed call had measured, and return the place to go on from; 0 where there is nothing."""
    try:
        file = load_arrays(path)
        for name, running in (("pool", pool), ("spatial", spatial)):
            running.restore({key: file[f"{name}_{key}"] for key in ("count", "shift", "sum", "products")})
        kept.append(file["kept"])
        return int(file["place"])
    except (OSError, ValueError, KeyError):
        return 0


def _key(source: ImageSource, size: int, network: FeatureNetwork, crop: Crop) -> str:
    about = [network.name, network.checksum, size, len(source)] + ([] if crop == "model" else [crop])
    digest = hashlib.sha256(json.dumps(about).encode())
    for place in range(len(source)):
        digest.update(source.name(place).encode(errors="surrogateescape") + b"\n")
    for place in range(0, len(source), max(1, len(source) // _LOOKED_AT)):
        try:
            digest.update(image_checksums(prepared(source, place, size, crop)[None])[0].encode())
        except ImageError:
            digest.update(b"broken")
    return digest.hexdigest()[:24]
