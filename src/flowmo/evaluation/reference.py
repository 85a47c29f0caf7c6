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

from ..data import ImageSource, adm_crop, fit_picture, to_tensor
from ..errors import DataError, ImageError
from ..files import cache_folder, replacing
from ..metrics.features import FeatureNetwork
from ..metrics.statistics import RunningStatistics, Statistics
from ..untrusted import load_arrays
from .results import picture_checksums

KEPT = 10_000
"""How many pictures' features are kept for precision and recall; ADM's own reference file has as many."""
_LOOKED_AT = 64
_SAVE_EVERY = 10_000
_BATCH = 32

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
) -> Reference:
    """Return the reference of every picture that can be read, brought to ``size`` pixels by ``crop``.

    It is read from the cache (FLOWMO_CACHE) where these pictures were measured before. Its key there is content, the
    names of all pictures and the pixels of some of them. A call that was killed goes on where it was.
    on_done: called with a number of pictures that are done.
    Raises DataError without pictures.
    """
    folder = cache or cache_folder() / "statistics"
    key = _key(source, size, network, crop)
    path, part = folder / f"{key}.npz", folder / f"{key}.part.npz"
    if not path.exists():
        _measure(source, size, network, device, on_done, path, part, crop)
    else:
        on_done(len(source))
    reference = read_reference(path)
    if reference is None:  # damaged
        path.unlink()
        return reference_of(source, size, network, device, on_done, cache, crop)
    return reference


def adm_reference(path: Path, network: FeatureNetwork, device: torch.device) -> Reference:
    """Read a reference batch of ADM's evaluator, or a file of pictures alone, such as samples.

    The batch has ``mu``, ``sigma``, ``mu_s``, ``sigma_s``, and pictures ``arr_0`` for precision and recall.
    Raises DataError for any other file.
    """
    try:
        arrays = load_arrays(path, ("mu", "sigma", "mu_s", "sigma_s", "arr_0"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: not an .npz of ADM's evaluator that can be read ({error})") from None
    if "mu" not in arrays and "arr_0" not in arrays:
        raise DataError(f"{path}: has neither mu and sigma nor pictures arr_0; give a reference of ADM's evaluator")
    found = features_of_pixels(check_pixels(arrays["arr_0"], path), network, device) if "arr_0" in arrays else {}
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
) -> dict[str, np.ndarray]:
    """Return each space's features (N, D) of pixels, uint8 N H W 3.

    on_done: called with a number of pictures that are done.
    """
    spaces: dict[str, list[np.ndarray]] = {}
    for i in range(0, len(pixels), _BATCH):
        part = torch.from_numpy(np.array(pixels[i : i + _BATCH])).permute(0, 3, 1, 2)
        for space, values in network(part.to(device).float() / 127.5 - 1).items():
            spaces.setdefault(space, []).append(values.cpu().numpy())
        on_done(len(part))
    return {space: np.concatenate(values) for space, values in spaces.items()}


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
    part: Path,
    crop: Crop,
) -> None:
    pool, spatial = RunningStatistics(), RunningStatistics()
    kept: list[np.ndarray] = []
    place = _restore(part, pool, spatial, kept)
    on_done(place)
    stride = max(1, len(source) // KEPT)
    saved = place
    for places, images in _batches(source, size, place, crop):
        if images:
            batch = torch.stack([image for _, image in images]).to(device)
            found = {space: values.cpu().numpy() for space, values in network(batch).items()}
            pool.add(found["pool"])
            spatial.add(found["spatial"])
            kept.append(found["pool"][[n for n, (p, _) in enumerate(images) if p % stride == 0]])
        place = places.stop
        on_done(len(places))
        if place - saved >= _SAVE_EVERY and place < len(source):
            _save(part, pool, spatial, kept, place=np.array(place))
            saved = place
    if not pool.count:
        raise DataError(f"none of the pictures can be read: {source.describe()}")
    p, s = pool.statistics(), spatial.statistics()
    about = {"data": source.describe().rpartition("/")[2], "count": p.count, "size": size, "network": network.name}
    about |= {"crop": crop, "sha256": network.checksum, "key": path.stem}
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
    part.unlink(missing_ok=True)


def _batches(
    source: ImageSource, size: int, start: int, crop: Crop
) -> Iterator[tuple[range, list[tuple[int, Tensor]]]]:
    for i in range(start, len(source), _BATCH):
        places, images = range(i, min(i + _BATCH, len(source))), []
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
    return to_tensor(adm_crop(image, size) if crop == "adm" else fit_picture(image, size, size))


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
            digest.update(picture_checksums(prepared(source, place, size, crop)[None])[0].encode())
        except ImageError:
            digest.update(b"broken")
    return digest.hexdigest()[:24]
