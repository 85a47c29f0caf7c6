"""Real codecs on real pictures: close at high rates, never above the bytes allowed, the best of the scales."""

from __future__ import annotations

import itertools
import sys

import pytest
import torch
from codec_support import NAMES, alex_or_skip, codec_or_skip, photographs
from PIL import Image

from flowmo.comparison.codecs import COUNTED, SCALES, best_files, get_codec, restore, shrink
from flowmo.comparison.headers import strip_headers
from flowmo.data import to_tensor
from flowmo.errors import ConfigError
from flowmo.metrics.pixels import psnr
from flowmo.perceptual import LPIPS

TARGETS = (60, 144, 300, 700)


@pytest.fixture(scope="module")
def alex() -> LPIPS:
    return alex_or_skip()


@pytest.mark.parametrize("size", [(64, 64), (40, 57)])
@pytest.mark.parametrize("name", NAMES)
def test_at_the_highest_level_the_picture_comes_back(name: str, size: tuple[int, int]) -> None:
    codec = codec_or_skip(name)
    for picture in photographs(2):
        picture = picture.resize(size)
        decoded = [codec.decode(file) for file in codec.encode(picture, codec.levels - 1)]
        assert all(image.size == size and image.mode == "RGB" for image in decoded)
        assert len({image.tobytes() for image in decoded}) == 1, "variants of one level are one picture"
        assert psnr(to_tensor(decoded[0])[None], to_tensor(picture)[None]) > 25


@pytest.mark.parametrize("name", NAMES)
def test_sizes_grow_with_the_level(name: str) -> None:
    codec = codec_or_skip(name)
    picture = photographs(1)[0]
    sizes = [min(map(len, codec.encode(picture, level))) for level in range(0, codec.levels, codec.levels // 8)]
    assert sizes[-1] > 4 * sizes[0]
    assert all(b > 0.9 * a for a, b in itertools.pairwise(sizes))


@pytest.mark.parametrize("name", NAMES)
def test_choices_keep_to_their_bytes_and_gain_by_more(name: str, alex: LPIPS) -> None:
    codec = codec_or_skip(name)
    pictures = photographs(2)
    found = [best_files(codec, picture, TARGETS, alex) for picture in pictures]
    for picture, choices in zip(pictures, found, strict=True):
        assert list(choices) == [(way, target) for way in COUNTED for target in TARGETS]
        for (way, target), choice in choices.items():
            if choice is None:
                continue
            assert (choice.counted, choice.target) == (way, target)
            assert choice.file_bytes == len(choice.data)
            assert choice.payload_bytes == len(strip_headers(choice.data)) < choice.file_bytes
            assert (choice.file_bytes if way == "file" else choice.payload_bytes) <= target
            again = restore(codec, choice.data, (64, 64))
            assert again.size == picture.size
            measured = float(alex(to_tensor(again)[None], to_tensor(picture)[None]))
            assert measured == pytest.approx(choice.lpips, abs=1e-5)
            assert codec.decode(choice.data).size == shrink(picture, choice.scale).size
        for way in COUNTED:
            along = [choice.lpips for target in TARGETS if (choice := choices[way, target]) is not None]
            assert along == sorted(along, reverse=True)
            assert along[-1] < 0.3
            assert len(along) == 1 or along[-1] < 0.6 * along[0]
        payload, whole = choices["payload", 700], choices["file", 700]
        assert payload is not None
        assert whole is not None
        assert payload.lpips <= whole.lpips + 1e-6  # headers cost something


def test_a_number_of_bytes_below_the_floor_has_no_file(alex: LPIPS) -> None:
    picture = photographs(1)[0]
    choices = best_files(get_codec("jpeg"), picture, (100, 3), alex)
    assert choices["file", 100] is None
    assert choices["payload", 100] is not None
    assert choices["payload", 3] is None
    assert best_files(get_codec("jpeg"), picture, (100,), alex, counted=("file",)) == {("file", 100): None}


def test_the_choice_is_the_best_of_all_scales(alex: LPIPS) -> None:
    """By brute force: every level at every scale, of each scale the highest that fits, of those the lowest LPIPS."""
    codec, picture, target = get_codec("webp"), photographs(4)[-1], 144
    best: dict[float, float] = {}
    for scale in SCALES:
        fitting = [
            file
            for level in range(codec.levels)
            if len(file := codec.encode(shrink(picture, scale), level)[0]) <= target
        ]
        if fitting:
            again = restore(codec, fitting[-1], (64, 64))
            best[scale] = float(alex(to_tensor(again)[None], to_tensor(picture)[None]))
    assert len(best) >= 3
    choice = best_files(codec, picture, (target,), alex, ("file",))["file", target]
    assert choice is not None
    assert choice.scale == min(best, key=lambda scale: best[scale])
    assert choice.lpips == pytest.approx(min(best.values()), abs=1e-5)
    assert max(best.values()) > 1.2 * choice.lpips


def test_nothing_is_coded_or_measured_twice(alex: LPIPS) -> None:
    """The calls are counted, and pass through to the real things."""
    codec, coded, measured = get_codec("jpeg"), [], []

    def encode(image: Image.Image, level: int) -> list[bytes]:
        coded.append((image.size, level))
        return codec.encode(image, level)

    def lpips(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        measured.append(len(a))
        return alex(a, b)

    counting = type(codec)(codec.name, codec.about, codec.levels, encode, codec.decode)
    best_files(counting, photographs(1)[0], TARGETS, lpips)
    assert len(set(coded)) == len(coded) < 0.5 * len(SCALES) * codec.levels
    assert len(measured) == 1
    assert measured[0] <= len(SCALES) * len(COUNTED) * len(TARGETS)


def test_what_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="jpeg, webp, avif, jpeg2000, jpegxl"):
        get_codec("png")
    monkeypatch.setitem(sys.modules, "imagecodecs", None)
    with pytest.raises(ConfigError, match=r"flowmo\[codecs\]"):
        get_codec("jpegxl")


@pytest.mark.parametrize("name", [name for name in NAMES if name != "jpegxl"])
def test_threads_that_code_the_same_picture_do_not_see_the_settings_of_one_another(name: str) -> None:
    """Pillow keeps the settings of a saving in the image itself, where another thread's would be taken for them."""
    picture = photographs(1)[0]
    before = dict(vars(picture))
    codec_or_skip(name).encode(picture, 3)
    assert vars(picture) == before
