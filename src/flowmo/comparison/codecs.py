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
    """An image codec with a scale of qualities."""

    name: str  # as ``get_codec`` takes it
    about: str  # the encoder's settings, in words
    levels: int  # of quality: 0, the smallest file, to levels - 1
    encode: Callable[[Image.Image, int], list[bytes]]
    """Returns the files of a picture at a level, all of the same pixels; which is best depends on what is counted."""
    decode: Callable[[bytes], Image.Image]  # returns the picture of a file


class CodecFile(NamedTuple):
    """The file that stands for a codec at one number of bytes."""

    counted: Counted  # what was held to the target
    target: int  # bytes that were allowed
    scale: float  # of a side of the coded picture, as a share of the original's
    level: int  # of quality, in the codec's ``levels``
    file_bytes: int  # of this file, whole
    payload_bytes: int  # of this file, without headers
    lpips: float  # of its picture, enlarged, to the original
    data: bytes  # the file itself


def get_codec(name: str) -> Codec:
    """Return the codec of that name: jpeg, webp, avif, jpeg2000 or jpegxl.

    Raises ConfigError for another name, or for a codec that is not installed.
    """
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


def installed_codecs(say: Callable[[str], None] = lambda line: None) -> list[Codec]:
    """Return the codecs that are installed. say: told of each other one, and how to get it."""
    found = []
    for name in CODECS:
        try:
            found.append(get_codec(name))
        except ConfigError as error:
            say(f"note: {error}")
    return found


def best_files(
    codec: Codec,
    image: Image.Image,
    targets: Sequence[int],
    lpips: Distance,
    counted: Sequence[Counted] = COUNTED,
    scales: Sequence[float] = SCALES,
) -> dict[tuple[Counted, int], CodecFile | None]:
    """Return the best file for each way of counting and each number of bytes, None where none is so small.

    At each scale the highest quality that is not above the target is found by bisection.
    Of these files, and those found for smaller targets, the one of the lowest LPIPS is taken.
    image: RGB, its sides at least what LPIPS takes.
    Each (scale, quality) is coded once, and each picture measured once.
    """
    small = {scale: shrink(image, scale) for scale in scales}
    made: dict[tuple[float, int], dict[Counted, tuple[int, bytes]]] = {}

    def coded(scale: float, level: int) -> dict[Counted, tuple[int, bytes]]:
        """Return, for each way of counting, the size and the file of the variant that is smallest by it."""
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

    chosen: dict[tuple[Counted, int], CodecFile | None] = {}
    for way, target in keys:
        fitting = [place for place in measured if made[place][way][0] <= target]
        chosen[way, target] = None
        if fitting:
            scale, level = place = min(fitting, key=lambda place: (lpips_of[place], place))
            data = made[place][way][1]
            sizes = len(data), len(strip_headers(data))
            chosen[way, target] = CodecFile(way, target, scale, level, *sizes, lpips_of[place], data)
    return chosen


def shrink(image: Image.Image, scale: float) -> Image.Image:
    """Return the image scaled by Lanczos, each side at least 8 pixels."""
    size = (max(SMALLEST_SIDE, round(scale * image.width)), max(SMALLEST_SIDE, round(scale * image.height)))
    return image if size == image.size else image.resize(size, Image.Resampling.LANCZOS)


def restore(codec: Codec, data: bytes, size: tuple[int, int]) -> Image.Image:
    """Return the picture in a file, enlarged by Lanczos to ``size`` = (height, width)."""
    image = codec.decode(data)
    return image if image.size == size[::-1] else image.resize(size[::-1], Image.Resampling.LANCZOS)


def _largest(size: Callable[[int], int], levels: int, target: int) -> int | None:
    """Return the highest level whose size is at most ``target``, None if the lowest is larger; sizes grow with it."""
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
    image.copy().save(buffer, kind, **settings)  # Pillow keeps the settings in the image, which other threads save too
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
    """Return the picture as JPEG 2000 in rate mode: from 64 bytes up, eight levels for each doubling.

    Below the size of the headers nothing changes.
    The smallest band of the wavelet has 8 pixels a side: more bands cost small pictures more than they gain.
    """
    rate = 3 * image.width * image.height / (64 * 2 ** (level / 8))
    resolutions = max(1, min(6, int(math.log2(min(image.size))) - 2))
    settings = {"no_jp2": True, "irreversible": True, "quality_mode": "rates", "num_resolutions": resolutions}
    return [drop_comments(_save(image, "JPEG2000", quality_layers=[max(rate, 1.0)], **settings))]


def _jpegxl(image: Image.Image, level: int) -> list[bytes]:
    """Return the picture as JPEG XL; distances fall from 25 (the largest there is) to 0.1 in equal ratios."""
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
