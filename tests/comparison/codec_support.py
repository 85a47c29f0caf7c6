"""What the tests of codecs and comparisons share: pictures, and the network that chooses."""

from __future__ import annotations

import pytest
from PIL import Image

from flowmo import samples
from flowmo.comparison.codecs import CODECS, Codec, get_codec
from flowmo.data import center_crop, open_image, shorter_side_to
from flowmo.errors import ConfigError, WeightsError
from flowmo.perceptual import LPIPS, load_lpips

NAMES = list(CODECS)


def photographs(count: int, size: int = 64) -> list[Image.Image]:
    return [center_crop(shorter_side_to(open_image(path).image, size), size) for path in samples.paths()[:count]]


def codec_or_skip(name: str) -> Codec:
    try:
        return get_codec(name)
    except ConfigError as error:
        pytest.skip(str(error))


def alex_or_skip() -> LPIPS:
    try:
        return load_lpips("alex")
    except WeightsError as error:
        pytest.skip(str(error))
