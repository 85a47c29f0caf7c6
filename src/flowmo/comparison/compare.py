"""Tokenizers and image codecs at equal bytes, on the same pictures by the same measures (Table 1, Figure 1).

Everything is compared as it would be saved, rounded to 8 bits, each picture by itself (not the paper's conventions: E2,
E5, E6). Bytes are counted two ways: as a file with all its headers, and without them (headers.py; for a tokenizer, its
tokens). A codec is given a number of bytes and must stay at or below it for every picture; a row that some pictures do
not reach has no numbers.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from ..codec import HEADER_SIZE
from ..data import to_float, to_tensor
from ..errors import ConfigError
from ..evaluation.evaluator import Evaluator, Reconstruct
from ..evaluation.result_store import ResultStore
from ..evaluation.results import image_checksums, list_checksum
from ..flow import function_evaluations
from ..metrics.table import Measurements
from ..provenance import code_version, weights_checksum
from ..tokenizer import FlowMo
from .adapters import FlowMoPeer, Peer, ThumbnailPeer, at_rates
from .codecs import Codec, CodecFile, Counted, restore
from .coded import Choices, Search

ANOTHER = ", another picture's code"
"""Ends the name of a model's row that is decoded from the codes of other images."""
Group = Literal["codec", "thumbnail", "model", "tokenizer", "control"]


@dataclass(frozen=True)
class Row:
    """One line of the table: a method, its bytes and its metrics."""

    name: str  # of the method
    group: Group  # the kind of method
    counting: str  # how its bytes are counted, in words
    counted: Counted | None  # what of a codec's files was held to the target, else None
    target: int | None  # bytes that a codec or a thumbnail was allowed, or that a model takes at a chosen rate
    count: int  # pictures
    reached: int  # pictures that could be brought to the target
    file_bytes: float | None  # with headers, a mean over pictures, None where there is no such number
    payload_bytes: float | None  # without headers, a mean over pictures, None where there is no such number
    file_bits_per_pixel: float | None  # of ``file_bytes``
    bits_per_pixel: float | None  # of ``payload_bytes``
    metrics: dict[str, float]
    """Means over pictures of psnr (dB), ssim, lpips_alex, lpips_vgg.

    Over all of them rfid, kid (and kid_error), fd_efflite0, kd_efflite0.
    beats_thumbnail is the share nearer by LPIPS (Alex) than a thumbnail of as many bytes, beats_transform than the
    closed-form code of as many, where that was compared.
    """
    scales: dict[str, int] | None = None  # of a codec, how often each scale was the best


@dataclass(frozen=True)
class Method:
    """Something that makes reconstructions, and from which a row is measured."""

    name: str  # as in the table
    group: Group  # the kind of method
    counting: Callable[[], str]  # returns how its bytes are counted, in words; called after reconstruction
    key: Any
    """JSON data: all that its numbers depend on beside the pictures and the metrics, None where that is not known."""
    reconstruct: Reconstruct  # (images, their places) -> reconstructions
    sizes: Callable[[], tuple[float | None, float | None]]  # returns (file, payload) bytes; called after reconstruction
    counted: Counted | None = None  # as in ``Row``
    target: int | None = None  # as in ``Row``
    reached: int | None = None  # as in ``Row``; None for all pictures
    scales: dict[str, int] | None = None  # as in ``Row``


def codec_methods(codec: Codec, choices: Sequence[Choices], search: Search) -> list[Method]:
    """Return a method of a codec for each way of counting and each number of bytes."""
    found = []
    for counted in search.counted:
        for target in sorted(search.targets):
            chosen = [image[counted, target] for image in choices]
            found.append(_codec_method(codec, counted, target, chosen))
    return found


def peer_method(peer: Peer, size: tuple[int, int], seeds: Sequence[int]) -> Method:
    """Return a peer as a method. size: (height, width) in pixels. seeds: one a picture."""
    group: Group = "tokenizer"
    key: Any = None
    target, header = None, None
    if isinstance(peer, FlowMoPeer):
        group, header = "model", HEADER_SIZE
        key = [weights_checksum(peer.model), str(peer.model.config.sampler), str(peer.settings), list(seeds)]
        if peer.bits is not None:
            key.append(peer.bits)
            target = peer.bytes_per_image(*size)
    elif isinstance(peer, ThumbnailPeer):
        group, target, header = "thumbnail", peer.size, 0
        key = [peer.size]

    def reconstruct(images: Tensor, places: Sequence[int]) -> Tensor:
        return peer.reconstruct(images, [seeds[place] for place in places])

    def sizes() -> tuple[float | None, float | None]:
        payload = peer.bytes_per_image(*size)
        return (None if payload is None or header is None else payload + header), payload

    return Method(peer.name, group, lambda: peer.counting, key, reconstruct, sizes, target=target)


def all_methods(
    models: Iterable[tuple[str, FlowMo]],
    peers: Iterable[Peer],
    targets: Sequence[int],
    images: Tensor,
    seeds: Sequence[int],
    controls: bool = False,
) -> list[Method]:
    """Return models at each rate that they code at, other tokenizers, and thumbnails of each number of bytes.

    images: uint8 N 3 H W. seeds: one each. controls: whether :func:`control_methods` of the models follow.
    """
    size = (images.shape[2], images.shape[3])
    ours = [peer for name, model in models for peer in at_rates(name, model, targets, size)]
    methods = [peer_method(peer, size, seeds) for peer in (*ours, *peers, *map(ThumbnailPeer, targets))]
    for peer in ours if controls else ():
        methods += control_methods(peer, images, seeds)
    return methods


def control_methods(peer: FlowMoPeer, images: Tensor, seeds: Sequence[int]) -> list[Method]:
    """Return the methods that stand beside a model to control it.

    One decodes in a single step from pure noise, unless that is the model's own sampler.
    One decodes from the code of another picture (the one before), which shows how much the code tells.
    images: uint8 N 3 H W. seeds: one each.
    """
    size = (images.shape[2], images.shape[3])

    def reconstruct(_: Tensor, places: Sequence[int]) -> Tensor:
        others = images[[place - 1 for place in places]]
        return peer.reconstruct(to_float(others), [seeds[place] for place in places])

    quick = FlowMoPeer(f"{peer.name}, one step", peer.model, {"num_steps": 1, "guidance_scale": 1.0}, bits=peer.bits)
    one_step, itself = (peer_method(p, size, seeds) for p in (quick, peer))
    name = f"{peer.name}{ANOTHER}"
    controls = [
        replace(one_step, group="control"),
        replace(itself, name=name, group="control", reconstruct=reconstruct),
    ]
    given = {setting: value for setting, value in peer.settings.items() if value is not None}
    return controls if function_evaluations(replace(peer.model.config.sampler, **given)) > 1 else controls[1:]


def compare(
    evaluator: Evaluator,
    methods: Iterable[Method],
    store: ResultStore,
    finished: Callable[[Row], None],
    transform: Sequence[FlowMoPeer] = (),
) -> list[Row]:
    """Return a row for each method, in order; rows that the store holds are not measured again.

    finished: called with each row as soon as it is there.
    transform: the closed-form code at its rates, beside which all other rows stand too.
    """
    images, networks, rows = evaluator.images, evaluator.networks, []
    beaten = [_Beaten("beats_thumbnail", "thumbnail", evaluator, lambda size: ThumbnailPeer(size))]
    pixels = images.shape[2] * images.shape[3]
    checksum = list_checksum(image_checksums(images))
    measures = [*networks.lpips, *([network.name, network.checksum] for network in networks.features.values())]
    if transform:
        name = transform[0].name
        measures.append([f"nearer than {name}", weights_checksum(transform[0].model)])
        beaten.append(_Beaten("beats_transform", name, evaluator, lambda size: _largest(transform, size, images.shape)))
    for method in methods:
        reached = len(images) if method.reached is None else method.reached
        place = ["row", method.name, method.group, method.counted, method.target, method.key]
        key = None if method.key is None else [*place, checksum, measures, code_version()]
        known = None if key is None else store.get(key)
        if known is None:
            metrics = {}
            if reached == len(images):
                measured = evaluator.measure(method.reconstruct, method.group != "control")
                metrics = evaluator.metrics(measured)
                for other in beaten:
                    metrics |= other.share(measured, method)
            file_bytes, payload_bytes = method.sizes()
            row = Row(
                name=method.name,
                group=method.group,
                counting=method.counting(),
                counted=method.counted,
                target=method.target,
                count=len(images),
                reached=reached,
                file_bytes=file_bytes,
                payload_bytes=payload_bytes,
                file_bits_per_pixel=None if file_bytes is None else 8 * file_bytes / pixels,
                bits_per_pixel=None if payload_bytes is None else 8 * payload_bytes / pixels,
                metrics=metrics,
                scales=method.scales,
            )
            if key is not None:
                store.add(key, asdict(row))
        else:
            row = Row(**known)
        rows.append(row)
        finished(row)
    return rows


def _largest(peers: Sequence[FlowMoPeer], size: int, shape: Sequence[int]) -> FlowMoPeer | None:
    """Return the peer of most bytes that are at most ``size``, None where all take more. shape: of the images."""
    found = [(peer.bytes_per_image(shape[2], shape[3]) or 0, k) for k, peer in enumerate(peers)]
    fitting = [(taken, k) for taken, k in found if 0 < taken <= size]
    return peers[max(fitting)[1]] if fitting else None


class _Beaten:
    """How near another method comes to the images by LPIPS (Alex), each number of bytes measured once."""

    def __init__(self, metric: str, name: str, evaluator: Evaluator, peer_of: Callable[[int], Peer | None]) -> None:
        """Take the evaluator of the images, and make one of LPIPS (Alex) alone from it.

        metric: what the share is called. name: of the other method. peer_of: (bytes) -> it, at most so large.
        """
        alex = {name: lpips for name, lpips in evaluator.networks.lpips.items() if name == "alex"}
        only = replace(evaluator.networks, metrics=("lpips_alex",), lpips=alex, features={})
        self._evaluator = Evaluator(evaluator.images, only, evaluator.batch_size, evaluator.device)
        self._metric, self._name, self._peer_of = metric, name, peer_of
        self._lpips: dict[int, np.ndarray | None] = {}

    def share(self, measured: Measurements, method: Method) -> dict[str, float]:
        """Return the share of images nearer to the original than the other method at as many bytes, by its name.

        It is empty where there is no number of bytes, no LPIPS (Alex), and for the other method itself.
        """
        size = method.target or method.sizes()[1]
        if method.name == self._name or not size or "lpips_alex" not in measured.columns:
            return {}
        if int(size) not in self._lpips:
            peer = self._peer_of(int(size))
            measures = None if peer is None else self._evaluator.measure(peer.reconstruct, False)
            self._lpips[int(size)] = None if measures is None else measures.columns["lpips_alex"]
        other = self._lpips[int(size)]
        return {} if other is None else {self._metric: float((measured.columns["lpips_alex"] < other).mean())}


def check_targets(targets: Sequence[int], pixels: int) -> None:
    """Raise ConfigError for numbers of bytes that make no sense for pictures of so many pixels."""
    for target in targets:
        if not 3 <= target <= 3 * pixels:
            raise ConfigError(
                f"{target} bytes are too {'few' if target < 3 else 'many'} for a picture of {pixels} pixels; "
                f"give numbers from 3 to {3 * pixels}, which is no compression at all"
            )


def _codec_method(codec: Codec, counted: Counted, target: int, chosen: Sequence[CodecFile | None]) -> Method:
    reached = [choice for choice in chosen if choice is not None]

    def reconstruct(images: Tensor, places: Sequence[int]) -> Tensor:
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
    return Method(
        codec.name,
        "codec",
        counting=lambda: counting,
        key=files,
        reconstruct=reconstruct,
        sizes=sizes,
        counted=counted,
        target=target,
        reached=len(reached),
        scales=dict(sorted(scales.items(), reverse=True)),
    )
