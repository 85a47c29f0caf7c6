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
from functools import partial
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from ..codec import HEADER_SIZE
from ..data import to_float, to_tensor
from ..errors import ConfigError
from ..evaluation.ledger import Ledger
from ..evaluation.results import list_checksum, picture_checksums, weights_checksum
from ..flow.passes import decoder_passes
from ..provenance import code_version
from .adapters import FlowMoPeer, Peer, ThumbnailPeer
from .codecs import Codec, CodedPicture, Counted, restore
from .coded import Choices, Search
from .judge import Judge

Group = Literal["codec", "thumbnail", "model", "tokenizer", "control"]


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
    """A model beside itself: in a single step from pure noise, unless that is its own sampler, and from the code of
    another picture (the one before), which shows how much the code tells. images: uint8 N 3 H W. seeds: one each."""
    size = (images.shape[2], images.shape[3])

    def paint(_: Tensor, places: Sequence[int]) -> Tensor:
        others = images[[place - 1 for place in places]]
        return peer.reconstruct(to_float(others), [seeds[place] for place in places])

    quick = FlowMoPeer(f"{peer.name}, one step", peer.model, {"num_steps": 1, "guidance_scale": 1.0})
    one_step, itself = (peer_contender(p, size, seeds) for p in (quick, peer))
    name = f"{peer.name}, another picture's code"
    controls = [replace(one_step, group="control"), replace(itself, name=name, group="control", paint=paint)]
    given = {setting: value for setting, value in peer.settings.items() if value is not None}
    return controls if decoder_passes(replace(peer.model.config.sampler, **given)) > 1 else controls[1:]


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
