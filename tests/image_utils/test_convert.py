"""Images as people have them: whatever form one image comes in, the same pixels reach the model."""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

import flowmo
from flowmo import samples
from flowmo.data import fit_image, open_image, to_tensor
from flowmo.errors import ImageError
from flowmo.image_utils import as_images, convert, to_numpy
from flowmo.image_utils.scale import to_uint8
from flowmo.presets import tiny
from flowmo.tokenizer import FlowMo

CAT = next(path for path in samples.paths() if path.stem == "cat")


@pytest.fixture
def model(lively: Callable[[nn.Module], nn.Module]) -> FlowMo:
    return lively(FlowMo(tiny()))  # type: ignore[return-value]


@pytest.fixture
def photo() -> Image.Image:
    """Neither square nor of the model's size."""
    return open_image(CAT).image.resize((75, 50))


@pytest.fixture
def expected(photo: Image.Image) -> Tensor:
    return to_tensor(fit_image(photo, 32, 32))[None]


FORMS: dict[str, Callable[[Image.Image, Path], object]] = {
    "path": lambda photo, path: path,
    "text": lambda photo, path: str(path),
    "Pillow": lambda photo, path: photo,
    "Pillow with alpha": lambda photo, path: photo.convert("RGBA"),
    "H W 3": lambda photo, path: np.asarray(photo),
    "N H W 3": lambda photo, path: np.asarray(photo)[None],
    "H W 4": lambda photo, path: np.asarray(photo.convert("RGBA")),
    "3 H W array": lambda photo, path: np.asarray(photo).transpose(2, 0, 1),
    "3 H W uint8": lambda photo, path: torch.from_numpy(np.array(photo)).permute(2, 0, 1),
    "B 3 H W uint8": lambda photo, path: torch.from_numpy(np.array(photo)).permute(2, 0, 1)[None],
    "list": lambda photo, path: [photo],
    "tuple of arrays": lambda photo, path: (np.asarray(photo),),
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_gives_the_same_pixels(
    form: str, photo: Image.Image, expected: Tensor, model: FlowMo, tmp_path: Path
) -> None:
    photo.save(tmp_path / "photo.png")
    given = FORMS[form](photo, tmp_path / "photo.png")
    assert torch.equal(as_images(given, 32), expected)
    assert model.tokenize(given) == model.tokenize(expected)
    assert torch.equal(model.reconstruct(given, num_steps=1), model.reconstruct(expected, num_steps=1))


def test_grey_and_floats(photo: Image.Image) -> None:
    grey = np.asarray(photo.convert("L"))
    assert torch.equal(as_images(grey, 32), as_images(photo.convert("L"), 32))
    assert torch.equal(as_images(grey[..., None], 32), as_images(grey, 32))
    floats = np.asarray(photo).astype(np.float64) / 127.5 - 1
    exact = floats[:32, :32]
    assert torch.allclose(as_images(exact, 32)[0].permute(1, 2, 0).double(), torch.from_numpy(exact), atol=1e-6)
    # scaled by another filter than Pillow's, which rounds to 8 bits after each axis
    assert (as_images(floats, 32) - as_images(photo, 32)).abs().max() < 3 / 127.5
    assert as_images([torch.from_numpy(floats).permute(2, 0, 1), photo], 32).shape == (2, 3, 32, 32)


def test_floats_are_cut_where_a_file_is() -> None:
    """64 / 49 is no float: times 98 it is less than 128, to which a picture of 98 pixels is scaled."""
    image = torch.linspace(-1, 1, 3 * 49 * 98).reshape(3, 49, 98)
    scaled = F.interpolate(image[None], (64, 128), mode="bilinear", antialias=True)
    assert torch.equal(as_images([image], 64), scaled[..., 32:96])


def test_a_float_tensor_keeps_its_size(model: FlowMo) -> None:
    images = torch.rand(2, 3, 40, 24) * 2 - 1
    assert as_images(images, 32) is images
    assert torch.equal(as_images(images[0], 32), images[:1])
    assert model.tokenize(images[0]).image_size == (40, 24)


def test_a_list_of_different_sizes_and_forms(photo: Image.Image, model: FlowMo) -> None:
    images = [CAT, photo, np.asarray(photo.resize((20, 90))), str(samples.paths()[0])]
    batch = as_images(images, (32, 48))
    assert batch.shape == (4, 3, 32, 48)
    assert torch.equal(batch[1:2], as_images(photo, (32, 48)))
    assert len(model.tokenize(images)) == 4
    assert as_images([], 32).shape == (0, 3, 32, 32)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (3, "type int is no image.*give a path"),
        (None, "type NoneType is no image"),
        (b"bytes", "type bytes is no image"),
        ("absent.jpg", "absent.jpg: there is no such file"),
        (np.zeros((4, 4, 2), np.uint8), r"shape \(4, 4, 2\) is no image"),
        (np.zeros((4, 4, 3), np.int64), "must be uint8, or float.*int64"),
        (np.zeros((4, 4, 4)), "transparency"),
        (np.full((4, 4, 3), 255.0), "must lie in .*image / 127.5 - 1"),
        (torch.zeros(4, 4, 3), "B 3 H W"),
        (torch.zeros(4, 4, 3, dtype=torch.uint8), r"permute\(2, 0, 1\)"),
        (torch.zeros(3, 4, 4, dtype=torch.int64), "uint8 or floating point"),
        (torch.full((1, 3, 4, 4), float("nan")), "must lie in"),
        ([np.zeros((2, 4, 4, 3), np.uint8)], "one of its items is 2 images"),
        (np.zeros((0, 0, 3), np.uint8), "an image of 0 x 0 pixels is empty"),
        (np.zeros((0, 5, 3)), "an image of 0 x 5 pixels is empty"),
        (Image.new("RGB", (0, 7)), "an image of 7 x 0 pixels is empty"),
        (np.zeros((4, 4, 3), np.int32), r"array.astype\(numpy.uint8\)"),
        (torch.zeros(1, 4, 4, 3), r"permute\(0, 3, 1, 2\) puts channels first"),
        (torch.zeros(1, 4, 4), r"expand\(3, -1, -1\)"),
        (torch.zeros(2, 1, 4, 4), r"expand\(-1, 3, -1, -1\)"),
        (CAT.parent, r"is a folder, not a picture; .*glob"),
        (CAT.parent / "*.jpg", "those that match a pattern"),
        ("https://a.example/cat.jpg", "not fetched from an address; download it"),
        ({"image": CAT}, "type dict is no image"),
        (io.BytesIO(b""), "type BytesIO is no image"),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_what_is_no_image_is_explained(given: object, said: str) -> None:
    with pytest.raises(ImageError, match=said):
        as_images(given, 32)  # type: ignore[arg-type]


def test_a_search_for_files_is_a_list_of_them(model: FlowMo) -> None:
    assert len(model.tokenize(CAT.parent.glob("c*.jpg"))) == len(list(CAT.parent.glob("c*.jpg"))) > 1
    assert torch.equal(as_images((path for path in [CAT]), 32), as_images(CAT, 32))


def test_the_users_own_line_is_questioned(model: FlowMo, monkeypatch: pytest.MonkeyPatch) -> None:
    images = torch.linspace(0, 1, 3 * 32 * 32).reshape(1, 3, 32, 32)
    for verb in (model.tokenize, model.codes, model.reconstruct):
        monkeypatch.setattr(convert, "_warned", False)
        with pytest.warns(UserWarning, match="as if they were in") as caught:
            verb(images)
        assert caught[0].filename == __file__


def test_the_range_is_questioned_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(convert, "_warned", False)
    images = torch.linspace(0, 1, 3 * 32 * 32).reshape(1, 3, 32, 32)
    with pytest.warns(UserWarning, match=r"2 \* images - 1"):
        as_images(images, 32)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        as_images(images, 32)
        monkeypatch.setattr(convert, "_warned", False)
        as_images(2 * images - 1, 32)
        as_images(torch.zeros(1, 3, 32, 32), 32)
        as_images(Image.new("RGB", (32, 32), (200, 210, 220)), 32)  # bright


def test_back_to_pictures(photo: Image.Image, expected: Tensor) -> None:
    (back,) = flowmo.to_pil(expected)
    assert back.mode == "RGB"
    assert np.array_equal(np.asarray(back), np.asarray(fit_image(photo, 32, 32)))
    assert to_numpy(expected[0]).shape == (1, 32, 32, 3)
    assert np.array_equal(to_numpy(to_uint8(expected)), to_numpy(expected))
    with pytest.raises(ImageError, match="float or uint8"):
        flowmo.to_pil(expected[0, 0])
    with pytest.raises(ImageError, match="object of the type list"):
        flowmo.to_pil([expected])  # type: ignore[arg-type]


def test_a_first_picture_takes_three_lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    open_image(CAT).image.save("photo.jpg")
    model = flowmo.load()
    tokens = model.tokenize("photo.jpg")
    tokens.to_pil(model)[0].save("again.png")
    assert Image.open("again.png").size == (256, 256)
