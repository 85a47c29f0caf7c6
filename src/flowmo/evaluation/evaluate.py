"""Pictures become rows of numbers in the long part of an evaluation, which may be killed and spread over processes.

Each row is of one picture: its metrics, the bytes of its token file, its tokens and the features of its reconstruction.
The numbers of all pictures together follow from the rows (summary.py).
"""

from __future__ import annotations

import os
import time
import typing
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..codec import HEADER_SIZE, TokenFile, decode_file, encode_file
from ..config import SamplerConfig
from ..data import ImageSource, fit_image, to_tensor
from ..errors import DataError, ImageError, WeightsError
from ..metrics.networks import Networks
from .evaluator import features_by_name, measure_pairs
from .feature_cache import FeatureCache
from .measurable import Measurable
from .protocols import Noise, Protocol
from .results import image_checksums


@dataclass(frozen=True)
class Settings:
    """What the numbers of a model depend on."""

    protocol: Protocol  # how pictures are measured
    sampler: SamplerConfig | None  # how the decoder samples; None for one that draws nothing
    seed: int = 0  # of the noise; the protocol says how each picture's follows from it
    batch_size: int = 16  # pictures at a time, which the numbers do not depend on
    precision: str = "fp32"  # of the model's weights; what measures computes in float32 always
    compiled: bool = False  # which changes the numbers as little as another batch would
    bits_per_token: int | None = None  # the first so many bits of each token, at any rate; None for all (O12)


class Processes(typing.Protocol):
    """The processes that share the work; ``training.World`` is one."""

    @property
    def rank(self) -> int:
        """Return the number of this process, from 0."""
        ...

    @property
    def size(self) -> int:
        """Return how many processes there are."""
        ...

    def gather(self, value: Any) -> list[Any]:
        """Return in all processes what each has, by rank."""
        ...

    def collect(self, value: Any) -> list[Any] | None:
        """Return in the first process what each has, by rank; None in the others."""
        ...

    def share(self, value: Any) -> Any:
        """Return in all processes what the first one has."""
        ...


@dataclass(frozen=True)
class Alone:
    """One process that does all of the work."""

    rank: int = 0  # its number
    size: int = 1  # how many there are

    def gather(self, value: Any) -> list[Any]:
        """Return the value alone in a list."""
        return [value]

    def collect(self, value: Any) -> list[Any]:
        """Return the value alone in a list."""
        return [value]

    def share(self, value: Any) -> Any:
        """Return the value."""
        return value


class Measured(NamedTuple):
    """A picture that was measured."""

    place: int  # in the data
    checksum: str  # of its pixels as the model saw it (results.image_checksums)

    @property
    def key(self) -> str:
        """Return the key of its row."""
        return f"{self.place}:{self.checksum}"


@dataclass(frozen=True)
class MeasuredImages:
    """The pictures of an evaluation."""

    measured: list[Measured]  # those that could be read, in order
    skipped: list[str]  # the others, in words, in order


class _Image(NamedTuple):
    place: int  # in the data
    image: Tensor  # 3 S S in [-1, 1]
    checksum: str  # of its pixels, as in ``Measured``


def measure(
    model: Measurable,
    source: ImageSource,
    settings: Settings,
    networks: Networks,
    rows: FeatureCache,
    originals: Mapping[str, FeatureCache],
    processes: Processes,
    on_bad: Callable[[str, ImageError], None],
    on_done: Callable[[int, bool], None],
) -> MeasuredImages:
    """Bring ``rows`` to hold a row for each picture of the source that can be read, and ``originals`` the features.

    Every process returns the pictures of all.
    rows: under ``Measured.key``; what it holds is not measured again, as long as the picture is still the same.
    originals: by "network.space", under the checksum of the picture.
    on_bad: called with the name of a picture, and why it cannot be read.
    on_done: called with a number of pictures of this process, and whether they had to be measured.
    Raises DataError when none can be read, WeightsError for a model that samples values that are not finite.
    """
    size, fingerprint = model.config.image_size, model.fingerprint()
    noise = Noise(settings.protocol, settings.seed, len(source), (3, size, size))
    step = -(-settings.batch_size // settings.protocol.group) * settings.protocol.group
    batches = [range(i, min(i + step, len(source))) for i in range(0, len(source), step)]
    mine: list[Measured] = []
    skipped: list[tuple[int, str]] = []
    for places, images in _read(source, batches[processes.rank :: processes.size], size):
        good = []
        for place, image in zip(places, images, strict=True):
            if isinstance(image, ImageError):
                name = source.name(place)
                _, found, reason = str(image).partition(name)  # without the folders of this machine before it
                skipped.append((place, name + reason if found else f"{name}: {image}"))
                on_bad(name, image)
            else:
                good.append(image)
        mine += [Measured(p.place, p.checksum) for p in good]
        new = [p for p in good if Measured(p.place, p.checksum).key not in rows]
        unseen = [p for p in good if any(p.checksum not in known for known in originals.values())]
        start = time.perf_counter()
        if unseen:
            pixels = settings.protocol.for_networks(_stack(unseen).to(model.device))
            for space, values in features_by_name(pixels, networks).items():
                originals[space].add([p.checksum for p in unseen], {"features": values})
        if new:
            columns = _measure_batch(model, fingerprint, new, noise, settings, networks)
            columns["seconds"] = np.full(len(new), (time.perf_counter() - start) / len(new))
            rows.add([Measured(p.place, p.checksum).key for p in new], columns)
        on_done(len(good), bool(new))
    gathered = processes.gather((mine, skipped))
    result = MeasuredImages(
        sorted(m for theirs, _ in gathered for m in theirs),
        [reason for _, reason in sorted(pair for _, theirs in gathered for pair in theirs)],
    )
    if not result.measured:
        raise DataError(f"none of the {len(source)} pictures can be read; the first: {result.skipped[0]}")
    return result


@torch.no_grad()
def _measure_batch(
    model: Measurable,
    fingerprint: int,
    batch: Sequence[_Image],
    noise: Noise,
    settings: Settings,
    networks: Networks,
) -> dict[str, np.ndarray]:
    """Return one row a picture, by column."""
    images = _stack(batch).to(model.device)
    code, columns = _code(model, fingerprint, images, settings.bits_per_token)
    start = noise.of([p.place for p in batch]).to(model.device)
    reconstructed = model.decode_noise(code, start, settings.sampler).float()
    if not reconstructed.isfinite().all():
        raise WeightsError("the model samples values that are not finite; its weights or its sampler are unusable")
    features = features_by_name(settings.protocol.for_networks(reconstructed), networks)
    return columns | measure_pairs(reconstructed, images, networks, settings.protocol) | features


def _code(
    model: Measurable, fingerprint: int, images: Tensor, bits: int | None = None
) -> tuple[Tensor, dict[str, np.ndarray]]:
    """Return codes B N K, read back from the very files whose bytes are counted, and the columns of those files.

    A continuous latent has no files and no columns.
    """
    if not model.has_tokens:
        return model.codes(images), {}
    size = (images.shape[2], images.shape[3])
    tokens = model.tokenize(images)
    if bits is not None:
        tokens = tokens.truncate(bits)
    files = [encode_file(TokenFile(tokens[i], fingerprint, "crop", size)) for i in range(len(tokens))]
    read = torch.cat([decode_file(file, fingerprint).tokens.indices for file in files])
    sizes = np.array([len(file) for file in files])
    columns = {
        "tokens": read.flatten(1).to(torch.int32).numpy(),
        "file_bytes": sizes,
        "payload_bytes": sizes - HEADER_SIZE,
    }
    return model.code_of(read), columns


def _read(
    source: ImageSource, batches: Sequence[range], size: int
) -> Iterator[tuple[range, list[_Image | ImageError]]]:
    """Yield each batch of places with its pictures, decoded by threads while the one before is measured."""

    def load(place: int) -> _Image | ImageError:
        try:
            image = to_tensor(fit_image(source[place], size, size))
            return _Image(place, image, image_checksums(image[None])[0])
        except ImageError as error:
            return error

    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        pending: deque[tuple[range, list[Future]]] = deque()
        for places in batches:
            pending.append((places, [pool.submit(load, place) for place in places]))
            if len(pending) > 2:
                first, futures = pending.popleft()
                yield first, [future.result() for future in futures]
        for first, futures in pending:
            yield first, [future.result() for future in futures]


def _stack(images: Sequence[_Image]) -> Tensor:
    return torch.stack([image.image for image in images])
