"""Files of generated images are measured against a data set, up to the results on disk (Table 2, Appendix B; E8)."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..data import ImageSource, open_split
from ..errors import ConfigError, DataError, WeightsError
from ..files import check_targets
from ..metrics.features import Faster, FeatureNetwork, faster, load_inception
from ..perceptual.classifier import load_classifier
from .class_agreement import class_agreement, has_labels
from .evaluate import Processes
from .generated import Samples, common_side, generated_result, measure_generated, read_samples
from .reference import ALONE, BATCH, Crop, adm_reference, reference_of
from .results import write_result

Share = Callable[[Samples], dict[str, float]]


@dataclass(frozen=True)
class GeneratedRequest:
    """What is measured, and how; ``flowmo evaluate-generator`` has a flag for each field."""

    samples: Sequence[str]  # .npz files in ADM's layout, or folders of images
    reference: str  # the data set that they should look like, or a reference .npz of ADM's evaluator
    out: Path  # folder of the results
    split: str | None = None  # part of the data set
    reference_crop: Crop = "model"  # how the data set's images become squares
    limit: int | None = None  # of the data set, the first so many images; None for all
    no_agreement: bool = False  # whether the classifier is left out
    inception: Path | None = None  # file of weights, where none are installed
    inception_classifier: Path | None = None  # likewise of its last layer
    classifier: Path | None = None  # likewise of the classifier
    precision: str = "fp32"  # of products in the networks
    compile: bool = False  # the networks
    force: bool = False  # whether results that exist are overwritten
    command: str = ""  # that was typed

    def targets(self, samples: Sequence[Samples]) -> list[Path]:
        """Return the result of each. Raises ConfigError where two would be one, or one exists, without ``force``."""
        targets = [self.out / f"{each.name}.json" for each in samples]
        if len(set(targets)) < len(targets):
            raise ConfigError(
                "two of the samples would have results of the same name; measure them one by one, by --out"
            )
        check_targets(targets, map(Path, self.samples), self.force)
        return targets

    def open_reference(self) -> tuple[ImageSource | None, str | None]:
        """Return the data set and its split; None where the reference is a file. Raises ConfigError or DataError."""
        if Path(self.reference).suffix != ".npz":
            return open_split(self.reference, self.split, "train", self.limit)
        if self.reference_crop != "model":
            raise ConfigError(
                f"--reference-crop {self.reference_crop} is for a data set; {self.reference} is an .npz, whose "
                "pictures are cropped already"
            )
        return None, None

    def how(self) -> dict[str, Any]:
        """Return what a result says of precision and compilation, which is nothing for float32 as it is."""
        found: dict[str, Any] = {} if self.precision == "fp32" else {"precision": self.precision}
        return found | ({"compiled": True} if self.compile else {})

    def faster(self, function: Callable[[Tensor], Any], device: torch.device) -> Callable[[Tensor], Any]:
        """Return a function of images in this precision, and compiled where that is asked for."""
        return faster(function, device, self.precision, BATCH if self.compile else None)

    def network(self, device: torch.device) -> FeatureNetwork:
        """Return Inception on a device. Raises WeightsError where its weights are missing."""
        network = load_inception(self.inception, self.inception_classifier).to(device)
        return Faster(network, self.faster(network.forward, device), self.precision) if self.how() else network


def evaluate_generated(
    request: GeneratedRequest,
    device: torch.device,
    processes: Processes = ALONE,
    say: Callable[[str], None] = lambda line: None,
    on_open: Callable[[int], None] = lambda total: None,
    on_done: Callable[[int], None] = lambda count: None,
) -> list[tuple[Samples, dict[str, float]]]:
    """Measure all samples, write a result of each, and return them with their metrics; none but in the first process.

    The statistics of the data set are made once and kept (FLOWMO_CACHE).
    say: called in the first process with notes for a person. on_open: told how many images there are for this process.
    on_done: told a number of images that are done.
    Raises ConfigError, DataError or WeightsError before any work.
    """
    start = time.perf_counter()
    samples = [read_samples(path) for path in request.samples]
    size = common_side(samples)
    targets = request.targets(samples)
    network = request.network(device)
    source, split = request.open_reference()
    on_open(((len(source) if source else 0) + sum(len(each.pixels) for each in samples)) // processes.size)
    if source is None:
        reference = adm_reference(Path(request.reference), network, device, processes)
    else:
        crop = request.reference_crop
        reference = reference_of(source, size, network, device, on_done, crop=crop, processes=processes)
    agreement = _agreement(request, source, samples, device, processes, say)
    found = []
    for each, target in zip(samples, targets, strict=True):
        metrics = measure_generated(each, reference, network, device, on_done, processes) | agreement(each)
        if processes.rank:
            continue
        found.append((each, metrics))
        about = (time.perf_counter() - start, request.command, request.how())
        write_result(target, generated_result(each, metrics, reference, network, split, device, *about))
    return found


def _agreement(
    request: GeneratedRequest,
    source: ImageSource | None,
    samples: Sequence[Samples],
    device: torch.device,
    processes: Processes,
    say: Callable[[str], None],
) -> Share:
    """Return a function of samples that says how often the classifier sees the class that was asked.

    Its result is empty where there are no labels, or no such weights.
    """
    if request.no_agreement or source is None or not has_labels(source, samples):
        return lambda each: {}
    try:
        logits = request.faster(load_classifier(request.classifier).to(device).logits, device)
        size = common_side(samples)
        return class_agreement(source, size, logits, device, request.reference_crop, processes)
    except (WeightsError, DataError) as error:
        if request.classifier and isinstance(error, WeightsError):
            raise
        if not processes.rank:
            say(f"note: agreement with the classes is left out: {error}")
        return lambda each: {}
