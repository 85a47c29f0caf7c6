"""Tokenizers and image codecs at equal bytes, on the same pictures by the same measures (Table 1, Figure 1).

Everything is compared as it would be saved, rounded to 8 bits, each picture by itself (not the paper's conventions: E2,
E5, E6). Bytes are counted two ways: as a file with all its headers, and without them (headers.py; for a tokenizer, its
tokens). A codec is given a number of bytes and must stay at or below it for every picture; a row that some pictures do
not reach has no numbers.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from ..codec import HEADER_SIZE
from ..data import to_tensor, to_uint8
from ..errors import ConfigError
from ..provenance import code_version
from .adapters import FlowMoPeer, Peer, ThumbnailPeer
from .codecs import Codec, CodedPicture, Counted, restore
from .coded import Choices, Search
from .distances import frechet_of_features, kid
from .features import FeatureNetwork
from .ledger import Ledger
from .pixels import psnr, ssim, thumbnail
from .results import list_checksum, picture_checksums, weights_checksum
from .rows import Rows

Group = Literal["codec", "thumbnail", "model", "tokenizer", "control"]
Distances = Mapping[str, Callable[[Tensor, Tensor], Tensor]]

SPACES = {"inception": ("rfid", "kid"), "efflite0": ("fd_efflite0", "kd_efflite0")}
"""Fréchet and kernel distance in each network's space "pool"; only the first is FID."""

FEWEST = 4  # pictures that a kernel distance needs


@dataclass(frozen=True)
class Row:
    """One line of the table. counted, target: of a codec, and of a thumbnail the target, in bytes. reached: the
    pictures that could be brought to it. file_bytes, payload_bytes: means, None where there is no such number.
    bits_per_pixel: of the payload. scales: of a codec, how often each was the best. metrics: means over pictures of
    psnr (dB), ssim, lpips_alex, lpips_vgg; over all of them rfid, kid (and kid_error), fd_efflite0, kd_efflite0;
    beats_thumbnail: the share nearer by LPIPS (Alex) than a thumbnail of as many bytes."""

    name: str
    group: Group
    counting: str
    counted: Counted | None
    target: int | None
    count: int
    reached: int
    file_bytes: float | None
    payload_bytes: float | None
    file_bits_per_pixel: float | None
    bits_per_pixel: float | None
    metrics: dict[str, float]
    scales: dict[str, int] | None = None


class Judge:
    """Measures reconstructions of the same pictures, again and again.

    images: uint8 N 3 H W. distances: "alex", "vgg" to LPIPS. networks: of SPACES' names. device: of distances and
    networks. features: where a network's are kept under the checksums of pictures, so that none is looked at twice.
    """

    def __init__(
        self,
        images: Tensor,
        distances: Distances,
        networks: Mapping[str, FeatureNetwork],
        batch_size: int = 16,
        device: torch.device | str = "cpu",
        features: Mapping[str, Rows] | None = None,
    ) -> None:
        self.images, self.distances, self.networks = images, distances, networks
        self.batch_size, self.device = batch_size, torch.device(device)
        self._kept = features or {}
        self._reference: dict[str, np.ndarray] = {}
        self._small: dict[int, list[float]] = {}

    def batches(self) -> Iterable[tuple[Tensor, range]]:
        """(images B 3 H W in [-1, 1] on the CPU, their places in ``images``)."""
        for start in self._starts():
            chosen = self.images[start : start + self.batch_size]
            yield _scaled(chosen), range(start, start + len(chosen))

    @torch.no_grad()
    def measure(
        self,
        paint: Callable[[Tensor, Sequence[int]], Tensor],
        distributions: bool = True,
        size: Callable[[], float | None] = lambda: None,
    ) -> dict[str, float]:
        """paint: (images B 3 H W in [-1, 1], their places) -> their reconstructions. distributions: without them only
        what is of each picture is measured. size: bytes of the thumbnail to be compared with, asked for at the end."""
        values: dict[str, list[float]] = {}
        features: dict[str, list[np.ndarray]] = {name: [] for name in self.networks if distributions}
        for images, places in self.batches():
            pixels = to_uint8(paint(images, places))
            again, images = _scaled(pixels.to(self.device)), images.to(self.device)
            found = {"psnr": psnr(again, images), "ssim": ssim(again, images)}
            found |= {f"lpips_{name}": lpips(again, images) for name, lpips in self.distances.items()}
            for name, numbers in found.items():
                values.setdefault(name, []).extend(numbers.tolist())
            for name, parts in features.items():
                parts.append(self._features(name, pixels))
        metrics = {name: sum(numbers) / len(numbers) for name, numbers in values.items()}
        spent = size()
        if spent and "alex" in self.distances:
            pairs = zip(values["lpips_alex"], self._thumbnails(int(spent)), strict=True)
            metrics["beats_thumbnail"] = sum(ours < theirs for ours, theirs in pairs) / len(self.images)
        for name, parts in features.items():
            if len(self.images) >= FEWEST:
                metrics |= self._distribution(name, np.concatenate(parts))
        return metrics

    def _thumbnails(self, size: int) -> list[float]:
        """LPIPS (Alex) of the thumbnail of so many bytes to each picture."""
        if size not in self._small:
            self._small[size] = []
            for images, _ in self.batches():
                again = _scaled(to_uint8(thumbnail(images, 8 * size))).to(self.device)
                self._small[size] += self.distances["alex"](again, images.to(self.device)).tolist()
        return self._small[size]

    def _distribution(self, name: str, found: np.ndarray) -> dict[str, float]:
        if name not in self._reference:
            parts = [self._features(name, self.images[i : i + self.batch_size]) for i in self._starts()]
            self._reference[name] = np.concatenate(parts)
        reference, (frechet_name, kernel_name) = self._reference[name], SPACES[name]
        kernel, error = kid(reference, found)
        return {
            frechet_name: frechet_of_features(reference, found),
            kernel_name: kernel,
            f"{kernel_name}_error": error,
        }

    def _features(self, name: str, pixels: Tensor) -> np.ndarray:
        """pixels: uint8 B 3 H W -> (B, D), looked up where they are kept."""
        kept, keys = self._kept.get(name), picture_checksums(pixels)
        if kept is None or any(key not in kept for key in keys):
            found = self.networks[name](_scaled(pixels.to(self.device)))["pool"].cpu().numpy()
            if kept is None:
                return found
            kept.add(keys, {"features": found})
        return kept.get(keys)["features"]

    def _starts(self) -> range:
        return range(0, len(self.images), self.batch_size)


@dataclass(frozen=True)
class Contender:
    """Something that makes reconstructions. key: JSON data, all that its numbers depend on beside the pictures and the
    measures, None where that cannot be known. sizes: (file, payload) bytes a picture, asked for after painting."""

    name: str
    group: Group
    counting: Callable[[], str]
    key: Any
    paint: Callable[[Tensor, Sequence[int]], Tensor]
    sizes: Callable[[], tuple[float | None, float | None]]
    counted: Counted | None = None
    target: int | None = None
    reached: int | None = None
    scales: dict[str, int] | None = None


def codec_contenders(codec: Codec, choices: Sequence[Choices], search: Search) -> list[Contender]:
    """One for each way of counting and each number of bytes."""
    found = []
    for counted in search.counted:
        for target in sorted(search.targets):
            chosen = [picture[counted, target] for picture in choices]
            found.append(_codec_contender(codec, counted, target, chosen))
    return found


def peer_contender(peer: Peer, size: tuple[int, int], seeds: Sequence[int]) -> Contender:
    """size: (H, W). seeds: one a picture."""
    group: Group = "tokenizer"
    key: Any = None
    target, header = None, None
    if isinstance(peer, FlowMoPeer):
        group, header = "model", HEADER_SIZE
        key = [weights_checksum(peer.model), str(peer.model.config.sampler), str(peer.settings), list(seeds)]
    elif isinstance(peer, ThumbnailPeer):
        group, target, header = "thumbnail", peer.size, 0
        key = [peer.size]

    def paint(images: Tensor, places: Sequence[int]) -> Tensor:
        return peer.reconstruct(images, [seeds[place] for place in places])

    def sizes() -> tuple[float | None, float | None]:
        payload = peer.bytes_per_image(*size)
        return (None if payload is None or header is None else payload + header), payload

    return Contender(peer.name, group, lambda: peer.counting, key, paint, sizes, target=target)


def control_contenders(peer: FlowMoPeer, images: Tensor, seeds: Sequence[int]) -> list[Contender]:
    """A model beside itself: in a single step from pure noise, and from the code of another picture (the one before),
    which shows how much the code tells. images: uint8 N 3 H W. seeds: one a picture."""
    size = (images.shape[2], images.shape[3])

    def paint(_: Tensor, places: Sequence[int]) -> Tensor:
        others = images[[place - 1 for place in places]]
        return peer.reconstruct(_scaled(others), [seeds[place] for place in places])

    quick = FlowMoPeer(f"{peer.name}, one step", peer.model, {"num_steps": 1, "guidance_scale": 1.0})
    one_step, itself = (peer_contender(p, size, seeds) for p in (quick, peer))
    name = f"{peer.name}, another picture's code"
    return [replace(one_step, group="control"), replace(itself, name=name, group="control", paint=paint)]


def compare(
    judge: Judge, contenders: Iterable[Contender], ledger: Ledger, finished: Callable[[Row], None]
) -> list[Row]:
    """A row for each, in order. finished: called with each; rows that the ledger holds are not measured again."""
    images, rows = judge.images, []
    pixels = images.shape[2] * images.shape[3]
    pictures = list_checksum(picture_checksums(images))
    measures = [*judge.distances, *([network.name, network.checksum] for network in judge.networks.values())]
    for c in contenders:
        reached = len(images) if c.reached is None else c.reached
        place = ["row", c.name, c.group, c.counted, c.target, c.key]
        key = None if c.key is None else [*place, pictures, measures, code_version()]
        known = None if key is None else ledger.get(key)
        if known is None:
            metrics = {}
            if reached == len(images):
                metrics = judge.measure(c.paint, c.group != "control", partial(_thumbnail_of, c))
            file_bytes, payload_bytes = c.sizes()
            row = Row(
                name=c.name,
                group=c.group,
                counting=c.counting(),
                counted=c.counted,
                target=c.target,
                count=len(images),
                reached=reached,
                file_bytes=file_bytes,
                payload_bytes=payload_bytes,
                file_bits_per_pixel=None if file_bytes is None else 8 * file_bytes / pixels,
                bits_per_pixel=None if payload_bytes is None else 8 * payload_bytes / pixels,
                metrics=metrics,
                scales=c.scales,
            )
            if key is not None:
                ledger.add(key, asdict(row))
        else:
            row = Row(**known)
        rows.append(row)
        finished(row)
    return rows


def _thumbnail_of(contender: Contender) -> float | None:
    """The bytes of the thumbnail that stands beside it: those that it may take, or takes."""
    return None if contender.group == "thumbnail" else contender.target or contender.sizes()[1]


def check_targets(targets: Sequence[int], pixels: int) -> None:
    """Raises ConfigError for numbers of bytes that make no sense for pictures of so many pixels."""
    for target in targets:
        if not 3 <= target <= 3 * pixels:
            raise ConfigError(
                f"{target} bytes are too {'few' if target < 3 else 'many'} for a picture of {pixels} pixels; "
                f"give numbers from 3 to {3 * pixels}, which is no compression at all"
            )


def _codec_contender(codec: Codec, counted: Counted, target: int, chosen: Sequence[CodedPicture | None]) -> Contender:
    reached = [choice for choice in chosen if choice is not None]

    def paint(images: Tensor, places: Sequence[int]) -> Tensor:
        size = (images.shape[2], images.shape[3])
        files = [choice.data for i in places if (choice := chosen[i]) is not None]
        return torch.stack([to_tensor(restore(codec, data, size)) for data in files])

    def sizes() -> tuple[float | None, float | None]:
        if len(reached) < len(chosen):
            return None, None
        whole, payload = (float(np.mean([getattr(c, f"{way}_bytes") for c in reached])) for way in ("file", "payload"))
        return whole, payload

    scales = Counter(f"{choice.scale:g}" for choice in reached)
    files = hashlib.sha256(b"".join(choice.data for choice in reached)).hexdigest()
    counting = "the whole file" if counted == "file" else "the file without headers"
    return Contender(
        codec.name, "codec", lambda: counting, files, paint, sizes, counted, target, len(reached),
        dict(sorted(scales.items(), reverse=True)),
    )  # fmt: skip


def _scaled(images: Tensor) -> Tensor:
    return images.float() / 127.5 - 1
