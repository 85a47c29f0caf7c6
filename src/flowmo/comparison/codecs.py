"""Image codecs as peers at equal bytes: each at its best for a number of bytes (beside Figure 1, FACTS section 2).

A picture is coded at several scales, at each with the best quality that fits, and enlarged again; of these files the
one nearest to the picture by LPIPS (Alex) stands for the codec. All encoders are told to take their time.
"""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
import torch
from PIL import Image, features
from torch import Tensor

from ..data import decode, to_tensor
from ..errors import ConfigError
from .headers import drop_comments, strip_headers

Counted = Literal["file", "payload"]
"""What of a file is counted: all of it, or what is left without headers (headers.py)."""

COUNTED: tuple[Counted, ...] = ("file", "payload")
SCALES = (1.0, 0.75, 0.5, 0.375, 0.25)
SMALLEST_SIDE = 8
Distance = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Codec:
    """encode: picture and quality in range(levels), 0 the smallest file, to files that decode to the same pixels (the
    best depends on what is counted). about: the encoder's settings."""

    name: str
    about: str
    levels: int
    encode: Callable[[Image.Image, int], list[bytes]]
    decode: Callable[[bytes], Image.Image]


class CodedPicture(NamedTuple):
    """The file that stands for a codec at one number of bytes. file_bytes, payload_bytes: of this file, whole and
    without headers. lpips: of its picture, enlarged, to the original."""

    counted: Counted
    target: int
    scale: float
    level: int
    file_bytes: int
    payload_bytes: int
    lpips: float
    data: bytes


def get_codec(name: str) -> Codec:
    """jpeg, webp, avif, jpeg2000 or jpegxl. Raises ConfigError for another name or a codec that is not installed."""
    if name not in CODECS:
        raise ConfigError(f"there is no codec {name!r}; choose from {', '.join(CODECS)}")
    feature = {"webp": "webp", "avif": "avif", "jpeg2000": "jpg_2000", "jpeg": "jpg"}.get(name)
    if feature and not features.check(feature):
        raise ConfigError(f"Pillow was built without {name}; install Pillow 11.3 or newer, or leave it out")
    if name == "jpegxl":
        try:
            import imagecodecs

            present = imagecodecs.JPEGXL.available
        except ImportError:
            present = False
        if not present:
            raise ConfigError("jpegxl needs imagecodecs: pip install 'flowmo[codecs]', or leave it out")
    return CODECS[name]


def best_files(
    codec: Codec,
    image: Image.Image,
    targets: Sequence[int],
    lpips: Distance,
    counted: Sequence[Counted] = COUNTED,
    scales: Sequence[float] = SCALES,
) -> dict[tuple[Counted, int], CodedPicture | None]:
    """For each way of counting and each number of bytes the best file, None where the codec cannot make one so small.

    Quality is bisected at each scale; of the best at each scale that are not above the target (those found for smaller
    targets count too) the one of the lowest LPIPS is taken. image: RGB, its sides at least what LPIPS takes. Each
    (scale, quality) is coded, and each picture measured, once.
    """
    small = {scale: shrink(image, scale) for scale in scales}
    made: dict[tuple[float, int], dict[Counted, tuple[int, bytes]]] = {}

    def coded(scale: float, level: int) -> dict[Counted, tuple[int, bytes]]:
        """For each way of counting the size and the file of the variant that is best by it."""
        if (scale, level) not in made:
            files = codec.encode(small[scale], level)
            smallest, barest = min(files, key=len), min(files, key=lambda file: len(strip_headers(file)))
            made[scale, level] = {
                "file": (len(smallest), smallest),
                "payload": (len(strip_headers(barest)), barest),
            }
        return made[scale, level]

    def largest(way: Counted, target: int, scale: float) -> int | None:
        return _largest(lambda level: coded(scale, level)[way][0], codec.levels, target)

    keys = [(way, target) for way in counted for target in sorted(targets)]
    found = [(scale, largest(*key, scale)) for key in keys for scale in scales]
    measured = list(dict.fromkeys((scale, level) for scale, level in found if level is not None))
    distances = _distances(codec, image, [made[place]["file"][1] for place in measured], lpips)
    lpips_of = dict(zip(measured, distances, strict=True))

    chosen: dict[tuple[Counted, int], CodedPicture | None] = {}
    for way, target in keys:
        fitting = [place for place in measured if made[place][way][0] <= target]
        chosen[way, target] = None
        if fitting:
            scale, level = place = min(fitting, key=lambda place: (lpips_of[place], place))
            data = made[place][way][1]
            sizes = len(data), len(strip_headers(data))
            chosen[way, target] = CodedPicture(way, target, scale, level, *sizes, lpips_of[place], data)
    return chosen


def shrink(image: Image.Image, scale: float) -> Image.Image:
    """By Lanczos, at least 8 pixels a side."""
    size = (max(SMALLEST_SIDE, round(scale * image.width)), max(SMALLEST_SIDE, round(scale * image.height)))
    return image if size == image.size else image.resize(size, Image.Resampling.LANCZOS)


def restore(codec: Codec, data: bytes, size: tuple[int, int]) -> Image.Image:
    """The picture in a file, enlarged by Lanczos to ``size`` = (height, width)."""
    image = codec.decode(data)
    return image if image.size == size[::-1] else image.resize(size[::-1], Image.Resampling.LANCZOS)


def _largest(size: Callable[[int], int], levels: int, target: int) -> int | None:
    """The highest level whose size is at most ``target``, if sizes grow with it; None if the lowest is larger."""
    if size(0) > target:
        return None
    low, high = 0, levels
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if size(middle) <= target else (low, middle)
    return low


@torch.no_grad()
def _distances(codec: Codec, image: Image.Image, files: list[bytes], lpips: Distance) -> list[float]:
    if not files:
        return []
    original = to_tensor(image)
    size = (image.height, image.width)
    restored = torch.stack([to_tensor(restore(codec, data, size)) for data in files])
    return [float(d) for d in lpips(restored, original.expand_as(restored))]


def _save(image: Image.Image, kind: str, **settings: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **settings)
    return buffer.getvalue()


def _read(data: bytes) -> Image.Image:
    return decode(data, "a coded picture")


def _jpeg(image: Image.Image, level: int) -> list[bytes]:
    variants: tuple[dict[str, bool], ...] = ({}, {"optimize": True}, {"optimize": True, "progressive": True})
    return [
        drop_comments(_save(image, "JPEG", quality=level + 1, subsampling="4:2:0", **variant)) for variant in variants
    ]


def _webp(image: Image.Image, level: int) -> list[bytes]:
    return [_save(image, "WEBP", quality=level, method=6)]


def _avif(image: Image.Image, level: int) -> list[bytes]:
    return [_save(image, "AVIF", quality=level, speed=AVIF_SPEED, subsampling="4:2:0", max_threads=1)]


def _jpeg2000(image: Image.Image, level: int) -> list[bytes]:
    """Rate mode: from 64 bytes up, eight levels each time they double; below its headers' size nothing changes. The
    smallest of the wavelet's bands has 8 pixels a side: more of them cost small pictures more than they gain."""
    rate = 3 * image.width * image.height / (64 * 2 ** (level / 8))
    resolutions = max(1, min(6, int(math.log2(min(image.size))) - 2))
    settings = {"no_jp2": True, "irreversible": True, "quality_mode": "rates", "num_resolutions": resolutions}
    return [drop_comments(_save(image, "JPEG2000", quality_layers=[max(rate, 1.0)], **settings))]


def _jpegxl(image: Image.Image, level: int) -> list[bytes]:
    """Distances from 25 (the largest there is) down to 0.1 in equal ratios."""
    import imagecodecs

    distance = 25 * (0.1 / 25) ** (level / 63)
    pixels = np.asarray(image)
    return [bytes(imagecodecs.jpegxl_encode(pixels, distance=distance, effort=9, usecontainer=False, numthreads=1))]


def _read_jpegxl(data: bytes) -> Image.Image:
    import imagecodecs

    return Image.fromarray(imagecodecs.jpegxl_decode(data, numthreads=1))


# On eight photographs at 64 px speed 2 takes 2.5 times as long and speed 0 six times; LPIPS at 144 bytes of payload is
# 0.189 at speed 4, 0.177 at 2, 0.181 at 0, 0.200 at 6, and from 300 bytes on they differ little.
AVIF_SPEED = 4

CODECS = {
    "jpeg": Codec("jpeg", "4:2:0, the best of plain, optimized and progressive", 95, _jpeg, _read),
    "webp": Codec("webp", "lossy, method 6", 101, _webp, _read),
    "avif": Codec("avif", f"4:2:0, speed {AVIF_SPEED}", 101, _avif, _read),
    "jpeg2000": Codec("jpeg2000", "irreversible, bands down to 8 pixels, rate mode, no boxes", 121, _jpeg2000, _read),
    "jpegxl": Codec("jpegxl", "effort 9, bare codestream", 64, _jpegxl, _read_jpegxl),
}
