"""Geometry and value ranges: the published crop, the three fits and the way back, for shapes of every kind."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from flowmo import samples
from flowmo.data import (
    FITS,
    adm_crop,
    center_crop,
    fit_image,
    kept_size,
    random_crop,
    restore_size,
    shorter_side_to,
    to_image,
    to_tensor,
    to_uint8,
    whole_size,
)
from flowmo.errors import ConfigError, ImageError

PHOTO = Image.open(samples.paths()[0]).convert("RGB")
sides = st.integers(1, 300)
SCALING = FITS[:3]  # the fourth scales nothing and is tested by itself


def psnr(a: Image.Image, b: Image.Image) -> float:
    return float(-10 * np.log10(((np.asarray(a) / 255.0 - np.asarray(b) / 255.0) ** 2).mean() + 1e-12))


def photo(width: int, height: int) -> Image.Image:
    return PHOTO.resize((width, height), Image.Resampling.BICUBIC)


def test_every_8_bit_value_survives_the_tensor() -> None:
    ramp = Image.fromarray(np.arange(768, dtype=np.uint8).reshape(16, 16, 3))
    tensor = to_tensor(ramp)
    assert tensor.dtype == torch.float32
    assert (tensor.min(), tensor.max()) == (-1, 1)
    assert np.array_equal(np.asarray(to_image(tensor)), np.asarray(ramp))
    assert np.array_equal(np.asarray(to_image(to_tensor(PHOTO))), np.asarray(PHOTO))


def test_tensors_round_to_nearest_and_clamp() -> None:
    values = torch.tensor([-3.0, -1.0, 0.4 / 127.5 - 1, 0.6 / 127.5 - 1, 0.999, 7.0])
    assert to_uint8(values).tolist() == [0, 0, 0, 1, 255, 255]
    assert to_uint8(values.bfloat16().view(1, 2, 3)).shape == (1, 2, 3)
    with pytest.raises(ImageError, match="3 H W"):
        to_image(torch.zeros(1, 3, 8, 8))


def test_a_strip_does_not_fill_the_memory() -> None:
    with pytest.raises(ImageError, match="60000x1 is too narrow"):
        shorter_side_to(Image.new("RGB", (60_000, 1)), 64)
    assert shorter_side_to(Image.new("RGB", (1, 600)), 64).size == (64, 38_400)


@given(sides, sides, st.integers(1, 80))
@settings(max_examples=60, deadline=None)
def test_shorter_side(width: int, height: int, size: int) -> None:
    scaled = shorter_side_to(photo(width, height), size)
    assert min(scaled.size) == size
    assert max(scaled.size) == int(size * max(width, height) / min(width, height) + 1e-9)
    assert (scaled.width <= scaled.height) == (width <= height) or size * abs(width - height) < max(width, height)


def test_shorter_side_is_untouched_when_it_fits() -> None:
    wide = photo(300, 64)
    assert shorter_side_to(wide, 64) is wide


def test_crops_cut_where_they_say() -> None:
    image = photo(100, 65)
    pixels = np.asarray(image)
    assert np.array_equal(np.asarray(center_crop(image, 64)), pixels[0:64, 18:82])
    generator = np.random.default_rng(0)
    lefts = set()
    for _ in range(300):
        crop = np.asarray(random_crop(image, 64, generator))
        (place,) = [(y, x) for y in range(2) for x in range(37) if np.array_equal(pixels[y : y + 64, x : x + 64], crop)]
        lefts.add(place[1])
    assert lefts >= {0, 36}
    assert len(lefts) > 30
    for crop in (lambda: center_crop(image, 66), lambda: random_crop(image, 66, generator)):
        with pytest.raises(ImageError, match="too small"):
            crop()


@given(sides, sides, st.integers(1, 96))
@settings(max_examples=100, deadline=None)
def test_a_square_crop_is_the_published_one(width: int, height: int, size: int) -> None:
    image = photo(width, height)
    published = np.asarray(center_crop(shorter_side_to(image, size), size)).astype(int)
    fitted = np.asarray(fit_image(image, size, size, "crop")).astype(int)
    if max(width, height) < 60 * min(width, height):
        assert np.array_equal(fitted, published)
    else:  # A strip is cut and scaled at once, which rounds otherwise.
        assert np.abs(fitted - published).max() <= 2


@given(sides, sides, st.integers(1, 96), st.integers(1, 96), st.sampled_from(SCALING))
@settings(max_examples=200, deadline=None)
def test_sizes_there_and_back(width: int, height: int, model_height: int, model_width: int, fit: str) -> None:
    fitted = fit_image(photo(width, height), model_height, model_width, fit)  # type: ignore[arg-type]
    assert fitted.size == (model_width, model_height)
    back = restore_size(fitted, (height, width), fit)  # type: ignore[arg-type]
    if fit != "crop":
        assert back.size == (width, height)
        return
    assert back.size == kept_size((height, width), model_height, model_width)[::-1]
    assert back.width <= width
    assert back.height <= height
    assert back.width == width or back.height == height
    # The kept region has the model's proportions, to half a pixel or the one pixel that there is at least.
    assert abs(back.width * model_height - back.height * model_width) <= max(model_height, model_width)


@pytest.mark.parametrize("size", [(1, 1000), (1000, 1), (1, 1), (3, 5000), (20000, 2), (1, 100_000)])
@pytest.mark.parametrize("fit", SCALING)
def test_extreme_shapes(size: tuple[int, int], fit: str) -> None:
    fitted = fit_image(photo(*size), 256, 256, fit)  # type: ignore[arg-type]
    assert fitted.size == (256, 256)
    back = restore_size(fitted, size[::-1], fit)  # type: ignore[arg-type]
    assert back.size == ((min(size), min(size)) if fit == "crop" else size)


@pytest.mark.parametrize("fit", SCALING)
def test_the_right_size_is_untouched(fit: str) -> None:
    for same in (fit_image(PHOTO, 256, 256, fit), restore_size(PHOTO, (256, 256), fit)):  # type: ignore[arg-type]
        assert np.array_equal(np.asarray(same), np.asarray(PHOTO))


@pytest.mark.parametrize("size", [(256, 160), (160, 256), (230, 250)])
def test_what_comes_back_is_the_picture(size: tuple[int, int]) -> None:
    image = PHOTO.crop((0, 0, *size))
    same_detail = {f: restore_size(fit_image(image, 256, 256, f), image.size[::-1], f) for f in ("pad", "stretch")}
    assert min(psnr(back, image) for back in same_detail.values()) > 38
    kept = restore_size(fit_image(image, 256, 256, "crop"), image.size[::-1], "crop")
    side = min(size)
    assert psnr(kept, center_crop(image, side)) > 26
    others = [np.roll(np.asarray(image), shift, axis=axis) for axis in (0, 1) for shift in (-3, 3)]
    shifted = [psnr(kept, center_crop(Image.fromarray(other), side)) for other in others]
    assert max(shifted) < psnr(kept, center_crop(image, side)) - 2


def test_padding_repeats_the_edges() -> None:
    fitted = np.asarray(fit_image(PHOTO.crop((0, 0, 256, 156)), 256, 256, "pad"))
    assert np.array_equal(fitted[50:206], np.asarray(PHOTO)[:156])
    assert (fitted[:50] == fitted[50]).all()
    assert (fitted[206:] == fitted[205]).all()


def test_bad_requests() -> None:
    with pytest.raises(ConfigError, match="crop, pad, stretch"):
        fit_image(PHOTO, 64, 64, "squeeze")  # type: ignore[arg-type]
    for size in ((0, 10), (65535, 65535), (-1, 5)):
        with pytest.raises(ImageError, match="not a picture's size"):
            restore_size(PHOTO, size, "stretch")


@pytest.mark.parametrize("size", [(1, 1), (7, 30), (64, 64), (65, 33)])
def test_whole_scales_nothing_and_repeats_the_last_row_and_column(size: tuple[int, int]) -> None:
    picture = photo(size[1], size[0])
    height, width = whole_size(size, 16)
    assert height % 16 == width % 16 == 0
    assert 0 <= height - size[0] < 16
    extended = fit_image(picture, height, width, "whole")
    pixels, own = np.asarray(extended), np.asarray(picture)
    assert np.array_equal(pixels[: size[0], : size[1]], own)
    assert (pixels[size[0] :, : size[1]] == own[-1]).all()
    assert np.array_equal(np.asarray(restore_size(extended, size, "whole")), own)


def test_whole_takes_no_picture_that_is_larger() -> None:
    with pytest.raises(ImageError, match="do not fit into 16x16 unscaled"):
        fit_image(photo(17, 16), 16, 16, "whole")


def boxed(pixels: np.ndarray) -> np.ndarray:
    """H W 3 -> H // 2, W // 2, 3 by the mean of the pixels whose middles lie in each half-size pixel, one axis after
    the other, each rounded to whole levels as PIL does."""
    for axis in (1, 0):
        count = pixels.shape[axis]
        step, middles = count / (count // 2), np.arange(count) + 0.5
        means = [
            pixels.compress((middles > j * step) & (middles <= (j + 1) * step), axis).mean(axis)
            for j in range(count // 2)
        ]
        pixels = np.floor(np.stack(means, axis) + 0.5)
    return pixels


@pytest.mark.parametrize(("width", "height", "size"), [(256, 256, 64), (215, 151, 32), (150, 303, 64), (180, 97, 64)])
def test_adms_crop_is_that_of_its_reference_batches(width: int, height: int, size: int) -> None:
    """The halvings by hand, the bicubic filter of the cropped region alone; bilinear pixels are others.

    The sizes are such that no pixel's middle lies on a border inside a halved picture, where rounding would choose."""
    image = photo(width, height)
    pixels = np.asarray(image).astype(float)
    while min(pixels.shape[:2]) >= 2 * size:
        pixels = boxed(pixels)
    halved = Image.fromarray(pixels.astype(np.uint8))
    scale = size / min(halved.size)
    across, down = round(halved.width * scale), round(halved.height * scale)
    x, y = halved.width / across, halved.height / down
    left, top = (across - size) // 2, (down - size) // 2
    region = (left * x, top * y, (left + size) * x, (top + size) * y)
    expected = np.asarray(halved.resize((size, size), Image.Resampling.BICUBIC, box=region)).astype(int)
    found = np.asarray(adm_crop(image, size)).astype(int)
    assert found.shape == (size, size, 3)
    assert np.abs(found - expected).max() <= 1
    assert np.abs(found - np.asarray(fit_image(image, size, size))).max() > 4


def test_adms_crop_of_a_small_picture_or_a_strip() -> None:
    assert adm_crop(photo(20, 30), 32).size == (32, 32)  # grows
    assert np.array_equal(np.asarray(adm_crop(photo(32, 32), 32)), np.asarray(photo(32, 32)))
    with pytest.raises(ImageError, match="60000x1 is too narrow"):
        adm_crop(Image.new("RGB", (60_000, 1)), 64)
