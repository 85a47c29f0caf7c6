"""Generated pictures are measured by the metrics that ADM's evaluator defines (Table 2, Appendix B; E8).

They are FID and sFID against statistics of a data set, Inception Score, precision and recall, and whether a classifier
sees the class that was asked.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..data import find_images, open_image
from ..errors import ConfigError, DataError, ImageError
from ..files import real_path, user_path
from ..labels import checked_labels
from ..metrics.features import FeatureNetwork
from ..metrics.table import GENERATED, Measurements, allowed, compute
from ..perceptual.classifier import CLASSES
from ..provenance import machine
from ..untrusted import load_arrays
from .evaluate import Processes
from .evaluator import FEWEST
from .reference import ALONE, Reference, check_pixels, features_of_pixels, pixel_batches
from .results import Result, describe_data

Logits = Callable[[Tensor], Tensor]
"""A classifier: images B 3 H W in [-1, 1] -> logits (B, 1000)."""


class Samples(NamedTuple):
    """Generated pictures of one size."""

    pixels: np.ndarray  # uint8 N H W 3
    labels: np.ndarray | None  # int64 (N,); None where they are not known
    name: str  # for tables and files


def read_samples(path: str | Path) -> Samples:
    """Read an .npz in ADM's layout, or a folder of pictures of one size.

    The .npz has ``arr_0``, and labels ``arr_1`` if they are there.
    Raises DataError for anything else.
    """
    path = user_path(path)
    if path.is_dir():
        return Samples(_folder(path), None, real_path(path).name)
    if not path.exists():
        raise DataError(f"{path}: there is no such file or folder; 'flowmo generate --npz FILE' makes one")
    try:
        arrays = load_arrays(path, ("arr_0", "arr_1"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: not an .npz of samples that can be read ({error})") from None
    if "arr_0" not in arrays:
        raise DataError(f"{path}: has no arr_0; give samples in ADM's layout, uint8 N H W 3")
    pixels, labels = arrays["arr_0"], arrays.get("arr_1")
    if labels is not None:
        if labels.shape != pixels.shape[:1]:
            raise DataError(f"{path}: {labels.shape} labels arr_1 do not fit {len(pixels)} pictures arr_0")
        labels = checked_labels(labels, f"{path}: arr_1").astype(np.int64)
    return Samples(check_pixels(pixels, path), labels, path.stem)


def common_side(samples: Sequence[Samples]) -> int:
    """Return the side of square samples in pixels. Raises ConfigError where they are not, or of several sizes."""
    sizes = {each.pixels.shape[1:3] for each in samples}
    if len(sizes) > 1 or len(set(next(iter(sizes)))) > 1:
        raise ConfigError(f"samples must be square and of one size, got {', '.join(map(str, sorted(sizes)))}")
    return int(samples[0].pixels.shape[1])


def measure_generated(
    samples: Samples,
    reference: Reference,
    network: FeatureNetwork,
    device: torch.device,
    on_done: Callable[[int], None] = lambda count: None,
    processes: Processes = ALONE,
) -> dict[str, float]:
    """Return the metrics that can be had, by name; none but in the first of several processes.

    The Inception Score needs a classifier's last layer; precision, recall and KID need pictures in the reference.
    on_done: called with a number of pictures whose features are there.
    processes: those that share the samples, each of which has all of them.
    Raises DataError for a reference of another network.
    """
    found = features_of_pixels(samples.pixels, network, device, on_done, processes)
    if found is None:
        return {}
    kept = reference.features
    statistics = {"inception.pool": reference.pool, "inception.spatial": reference.spatial}
    measured = Measurements(
        {f"inception.{space}": values for space, values in found.items()},
        {} if kept is None or min(len(kept), len(samples.pixels)) < FEWEST else {"inception.pool": kept},
        statistics={space: known for space, known in statistics.items() if known is not None},
    )
    metrics, wrong = compute(allowed(measured, GENERATED), measured, GENERATED)
    if wrong:
        raise DataError(next(iter(wrong.values())))
    return metrics


def class_places(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Return where the C classes of a data set stand among the classifier's 1000, (C,), increasing.

    logits: (N, 1000), of the data set's pictures.
    labels: (N,) from 0 to C - 1.
    Both lists of classes are sorted by WordNet id, so of all increasing ways the one with the largest sum of mean
    log-probabilities is taken.
    Raises DataError where a class has no picture.
    """
    count = int(labels.max()) + 1
    shifted = logits - logits.max(1, keepdims=True)
    log_p = shifted - np.log(np.exp(shifted).sum(1, keepdims=True))
    if not all((labels == c).any() for c in range(count)):
        raise DataError("a class of the reference has no picture, so its place among the classifier's is unknown")
    score = np.stack([log_p[labels == c].mean(0) for c in range(count)])
    width = score.shape[1]
    best = np.full(width, -np.inf)  # of the classes so far, the last at most here
    back = np.zeros((count, width), np.int64)
    before = np.zeros(width)
    for c in range(count):
        here = score[c] + before
        back[c] = np.maximum.accumulate(np.where(here >= np.maximum.accumulate(here), np.arange(width), 0))
        best = np.maximum.accumulate(here)
        before = np.concatenate([[-np.inf], best[:-1]])
    places = np.zeros(count, np.int64)
    end = width - 1
    for c in reversed(range(count)):
        places[c] = back[c, end]
        end = places[c] - 1
    return places


@torch.no_grad()
def logits_of(pixels: np.ndarray, logits: Logits, device: torch.device, processes: Processes = ALONE) -> np.ndarray:
    """Return the classifier's logits (n, 1000) of this process's share of pixels, uint8 N H W 3."""
    parts = [logits(images).cpu().numpy() for images in pixel_batches(pixels, device, processes)]
    return np.concatenate(parts) if parts else np.zeros((0, CLASSES), np.float32)


def agreement(logits: np.ndarray, asked: np.ndarray, places: np.ndarray) -> float:
    """Return the share of pictures whose likeliest class, of those at ``places``, is the asked one."""
    return float((logits[:, places].argmax(1) == asked).mean())


def describe_reference(reference: Reference) -> dict[str, Any]:
    """Return what results say of a reference, as JSON data."""
    kept = 0 if reference.features is None else len(reference.features)
    return reference.about | {"pictures_for_precision_and_recall": kept}


def generated_result(
    samples: Samples,
    metrics: dict[str, float],
    reference: Reference,
    network: FeatureNetwork,
    split: str | None,
    device: torch.device,
    seconds: float,
    command: str = "",
    how: Mapping[str, Any] | None = None,
) -> Result:
    """Return the result of samples, with their metrics, the conventions and the reference.

    split: of the data set that the reference is of.
    seconds: of work.
    how: what it says of precision and compilation.
    """
    content = {
        "metrics": metrics,
        "conventions": {metric.name: metric.about for metric in GENERATED if metric.name in metrics},
        "reference": describe_reference(reference) | {"split": split},
        "network": {"name": network.name, "sha256": network.checksum},
    }
    return Result(
        kind="generation",
        protocol="ADM's evaluator",
        data=describe_data(f"samples {samples.name}", torch.from_numpy(np.array(samples.pixels)).permute(0, 3, 1, 2)),
        models=(),
        seed="as the samples were made",
        content=content | dict(how or {}),
        seconds=seconds,
        command=command,
        machine=machine(device),
    )


def _folder(folder: Path) -> np.ndarray:
    try:
        paths = find_images([str(folder)])
        images = [np.asarray(open_image(path).image) for path in paths]
    except ImageError as error:
        raise DataError(str(error)) from None
    shapes = {image.shape for image in images}
    if len(shapes) > 1:
        raise DataError(f"{folder}: pictures of several sizes, such as {', '.join(map(str, sorted(shapes)[:2]))}")
    return np.stack(images)
