"""Every kind of picture file, made from a real photograph, and every way in which one can be broken."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from flowmo import samples
from flowmo.data import decode, find_images, open_image
from flowmo.errors import ImageError
from flowmo.image_utils import notes, png_text


@pytest.fixture(scope="module")
def photo() -> Image.Image:
    """A real photograph that is not square, 256 wide and 160 high."""
    return Image.open(next(p for p in samples.paths() if p.stem == "coffee")).convert("RGB").crop((0, 30, 256, 190))


def difference(a: Image.Image, b: Image.Image) -> float:
    assert a.size == b.size
    assert a.mode == b.mode == "RGB"
    return float(np.abs(np.asarray(a).astype(float) - np.asarray(b)).mean())


def saved(image: Image.Image, path: Path, **options: object) -> Image.Image:
    image.save(path, **options)
    return open_image(path).image


@pytest.mark.parametrize("suffix", [".png", ".tif", ".bmp", ".ppm"])
def test_lossless_formats_are_exact(photo: Image.Image, tmp_path: Path, suffix: str) -> None:
    assert difference(saved(photo, tmp_path / f"a{suffix}"), photo) == 0


@pytest.mark.parametrize(("suffix", "bound"), [(".jpg", 4), (".webp", 3), (".avif", 3), (".jp2", 3), (".gif", 12)])
def test_lossy_formats_are_close(photo: Image.Image, tmp_path: Path, suffix: str, bound: float) -> None:
    assert difference(saved(photo, tmp_path / f"a{suffix}"), photo) < bound


def test_content_decides_not_the_suffix(photo: Image.Image, tmp_path: Path) -> None:
    assert difference(saved(photo, tmp_path / "a.jpg", format="PNG"), photo) == 0


@pytest.mark.parametrize("suffix", [".gif", ".webp", ".png"])
def test_an_animation_gives_its_first_frame(photo: Image.Image, tmp_path: Path, suffix: str) -> None:
    frames = [photo.transpose(Image.Transpose.FLIP_TOP_BOTTOM), Image.new("RGB", photo.size, "blue")]
    first = saved(photo, tmp_path / f"a{suffix}", save_all=True, append_images=frames, duration=100)
    assert difference(first, photo) < 12


def _stored(upright: np.ndarray, orientation: int) -> np.ndarray:
    """What a camera stores under an EXIF orientation, from the standard's words (row 0 is the visual ...)."""
    return {
        1: upright,  # top, column 0 left
        2: upright[:, ::-1],  # top, right
        3: upright[::-1, ::-1],  # bottom, right
        4: upright[::-1],  # bottom, left
        5: upright.swapaxes(0, 1),  # left, top
        6: upright[:, ::-1].swapaxes(0, 1),  # right, top
        7: upright[::-1, ::-1].swapaxes(0, 1),  # right, bottom
        8: upright[::-1].swapaxes(0, 1),  # left, bottom
    }[orientation]


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize(
    ("suffix", "options"), [(".png", {}), (".webp", {"lossless": True}), (".jpg", {"quality": 95})]
)
def test_exif_orientation(
    photo: Image.Image, tmp_path: Path, orientation: int, suffix: str, options: dict[str, object]
) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = Image.fromarray(np.ascontiguousarray(_stored(np.asarray(photo), orientation)))
    stored.save(tmp_path / f"a{suffix}", exif=exif, **options)
    picture = open_image(tmp_path / f"a{suffix}")
    assert picture.original_size == (160, 256)
    assert difference(picture.image, photo) <= (3 if suffix == ".jpg" else 0)


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
def test_unreadable_exif_does_not_matter(photo: Image.Image, tmp_path: Path) -> None:
    assert difference(saved(photo, tmp_path / "a.jpg", exif=b"Exif\0\0II*\0\xff\xff\xff\xff", quality=95), photo) < 3


@pytest.mark.parametrize("suffix", [".png", ".tif", ".pgm"])
def test_sixteen_bits_are_scaled_not_clipped(photo: Image.Image, tmp_path: Path, suffix: str) -> None:
    grey = np.asarray(photo.convert("L"))
    deep = grey.astype(np.uint16) * 257
    restored = np.asarray(saved(Image.fromarray(deep), tmp_path / f"a{suffix}"))
    assert np.array_equal(restored, np.repeat(grey[..., None], 3, axis=2))


def test_big_endian_tiff(photo: Image.Image, tmp_path: Path) -> None:
    grey = np.asarray(photo.convert("L"))
    data = (grey.astype(">u2") * 257).astype(">u2").tobytes()
    image = Image.frombytes("I;16B", photo.size, data)
    assert np.array_equal(np.asarray(saved(image, tmp_path / "a.tif"))[..., 0], grey)


def _png16(pixels: np.ndarray, colour_type: int) -> bytes:
    """A PNG of 16 bits a channel, written out by hand since Pillow writes none in colour."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels)
    header = struct.pack(">IIBBBBB", pixels.shape[1], pixels.shape[0], 16, colour_type, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def test_sixteen_bit_colour_png(photo: Image.Image) -> None:
    pixels = np.asarray(photo).astype(np.uint16) * 257
    assert difference(decode(_png16(pixels, 2), "colour"), photo) == 0
    opaque = np.concatenate([pixels, np.full_like(pixels[..., :1], 65535)], axis=2)
    assert difference(decode(_png16(opaque, 6), "colour and alpha"), photo) == 0


@pytest.mark.parametrize("top", [1.0, 255.0])
def test_float_tiff(photo: Image.Image, tmp_path: Path, top: float) -> None:
    grey = np.asarray(photo.convert("L"))
    image = Image.fromarray((grey * (top / 255)).astype(np.float32))
    assert np.array_equal(np.asarray(saved(image, tmp_path / "a.tif"))[..., 1], grey)


def test_floats_of_another_range_are_refused(photo: Image.Image, tmp_path: Path) -> None:
    Image.fromarray(np.asarray(photo.convert("L")).astype(np.float32) * 100).save(tmp_path / "a.tif")
    with pytest.raises(ImageError, match="8 or 16 bits"):
        open_image(tmp_path / "a.tif")


def test_grey_one_bit_palette(photo: Image.Image, tmp_path: Path) -> None:
    grey, bits, palette = photo.convert("L"), photo.convert("1"), photo.quantize(256)
    assert difference(saved(grey, tmp_path / "grey.png"), grey.convert("RGB")) == 0
    assert difference(saved(bits, tmp_path / "bits.png"), bits.convert("RGB")) == 0
    assert difference(saved(palette, tmp_path / "palette.png"), photo) < 6


def test_cmyk_jpeg_keeps_its_colours(photo: Image.Image, tmp_path: Path) -> None:
    assert difference(saved(photo.convert("CMYK"), tmp_path / "a.jpg", quality=95), photo) < 4


@pytest.mark.parametrize("suffix", [".png", ".webp", ".tif"])
def test_transparency_is_laid_on_white(photo: Image.Image, tmp_path: Path, suffix: str) -> None:
    alpha = np.zeros((160, 256), np.uint8)
    alpha[:, 100:], alpha[:, 200:] = 128, 255
    rgba = photo.copy()
    rgba.putalpha(Image.fromarray(alpha))
    result = np.asarray(saved(rgba, tmp_path / f"a{suffix}", **({"lossless": True} if suffix == ".webp" else {})))
    pixels = np.asarray(photo).astype(float)
    assert (result[:, :100] == 255).all()
    assert np.abs(result[:, 100:200] - (pixels * 128 + 255 * 127)[:, 100:200] / 255).max() <= 1
    assert np.array_equal(result[:, 200:], pixels[:, 200:])


def test_grey_with_alpha_and_transparent_palette(photo: Image.Image, tmp_path: Path) -> None:
    half = photo.convert("L")
    half.putalpha(Image.fromarray(np.repeat(np.uint8([[0], [255]]), [80, 80], axis=0).repeat(256, axis=1)))
    result = np.asarray(saved(half, tmp_path / "la.png"))
    assert (result[:80] == 255).all()
    assert np.array_equal(result[80:, :, 0], np.asarray(photo.convert("L"))[80:])
    palette = Image.fromarray(np.uint8([[0, 1]])).convert("P")
    palette.putpalette([255, 0, 0, 0, 0, 255])
    for suffix in (".png", ".gif"):
        result = np.asarray(saved(palette, tmp_path / f"p{suffix}", transparency=0))
        assert result.tolist() == [[[255, 255, 255], [0, 0, 255]]]


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".avif", ".gif", ".tif"])
@pytest.mark.parametrize("kept", [0.02, 0.5, 0.9])
def test_truncated_files(photo: Image.Image, tmp_path: Path, suffix: str, kept: float) -> None:
    path = tmp_path / f"holiday{suffix}"
    photo.save(path)
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * kept)])
    with pytest.raises(ImageError, match="holiday"):
        open_image(path)


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_damaged_bytes_raise_nothing_but_image_errors(photo: Image.Image) -> None:
    random = np.random.default_rng(0)
    refused = 0
    for kind in ("PNG", "JPEG", "GIF", "WEBP", "TIFF"):
        buffer = io.BytesIO()
        photo.resize((64, 40)).save(buffer, kind)
        for _ in range(60):
            data = np.frombuffer(buffer.getvalue(), np.uint8).copy()
            data[random.integers(0, min(len(data), 400), 6)] = random.integers(0, 256, 6)
            try:
                assert decode(data.tobytes(), "x").mode == "RGB"
            except ImageError:
                refused += 1
    assert refused > 50


@pytest.mark.parametrize(
    "data", [b"", b"no picture", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", b"%PDF-1.7\n"]
)
def test_foreign_files(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "a.jpg").write_bytes(data)
    with pytest.raises(ImageError, match=r"a\.jpg: not a picture"):
        open_image(tmp_path / "a.jpg")


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("side", [12_000, 60_000])
def test_a_decompression_bomb_is_refused(tmp_path: Path, side: int) -> None:
    bomb = bytearray(_png16(np.zeros((1, 1, 1)), 0))
    bomb[16:24] = struct.pack(">II", side, side)
    bomb[29:33] = struct.pack(">I", zlib.crc32(bomb[12:29]))
    with pytest.raises(ImageError, match="too large"):
        decode(bytes(bomb), "bomb")


def test_missing_file_and_folder(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="no such file"):
        open_image(tmp_path / "a.jpg")
    with pytest.raises(ImageError, match="folder"):
        open_image(tmp_path)


class TestFindPictures:
    @pytest.fixture
    def folder(self, photo: Image.Image, tmp_path: Path) -> Path:
        (tmp_path / "deep" / "er").mkdir(parents=True)
        (tmp_path / ".hidden").mkdir()
        for name in ("b.JPG", "a.png", "deep/c.webp", "deep/er/d.jpeg", ".hidden/x.png", "odd[1].png"):
            photo.save(tmp_path / name)
        (tmp_path / "notes.txt").write_text("no picture")
        (tmp_path / "._a.png").write_bytes(b"resource fork")
        return tmp_path

    def found(self, folder: Path, *arguments: str) -> list[str]:
        return [p.relative_to(folder).as_posix() for p in find_images([str(folder / a) for a in arguments])]

    def test_folders_are_searched_through(self, folder: Path) -> None:
        assert self.found(folder, ".") == ["a.png", "b.JPG", "deep/c.webp", "deep/er/d.jpeg", "odd[1].png"]

    def test_order_is_that_of_the_arguments_without_repeats(self, folder: Path) -> None:
        assert self.found(folder, "deep", "b.JPG", "deep/../b.JPG", "deep/c.webp", "a.png") == [
            "deep/c.webp",
            "deep/er/d.jpeg",
            "b.JPG",
            "a.png",
        ]

    def test_patterns(self, folder: Path) -> None:
        assert self.found(folder, "*.png") == ["a.png", "odd[1].png"]
        assert self.found(folder, "**/*.jpeg") == ["deep/er/d.jpeg"]
        assert self.found(folder, "d*") == ["deep/c.webp", "deep/er/d.jpeg"]

    def test_a_name_with_brackets_is_a_file_first(self, folder: Path) -> None:
        assert self.found(folder, "odd[1].png") == ["odd[1].png"]

    def test_a_named_file_is_taken_whatever_its_suffix(self, folder: Path) -> None:
        assert self.found(folder, "notes.txt") == ["notes.txt"]

    @pytest.mark.parametrize("argument", ["nothing.png", "*.tiff", "empty", "x" * 5000])
    def test_nothing_there(self, folder: Path, argument: str) -> None:
        (folder / "empty").mkdir()
        with pytest.raises(ImageError, match=r"no picture found|no such file"):
            find_images([str(folder / "a.png"), str(folder / argument)])

    def test_no_arguments(self) -> None:
        with pytest.raises(ImageError, match="no pictures given"):
            find_images([])


def _with_chunks(photo: Image.Image, before: bytes = b"", after: bytes = b"") -> bytes:
    with io.BytesIO() as buffer:
        photo.save(buffer, "PNG")
        png = buffer.getvalue()
    return png[:33] + before + png[33:-12] + after + png[-12:]


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


LARGE = zlib.compress(bytes(2**21))


@pytest.mark.parametrize(
    "chunk",
    [
        _chunk(b"zTXt", b"Comment\0\0" + LARGE),
        _chunk(b"zTXt", b"Comment\0\0" + zlib.compress(bytes(2**20)) + bytes(2**21)),
        _chunk(b"zTXt", b"Comment\0\1" + LARGE),
        _chunk(b"iTXt", b"Comment\0\1\0en\0\0" + LARGE),
        _chunk(b"iCCP", b"name\0\0" + LARGE),
        _chunk(b"iCCP", b"name\0\7" + LARGE),
        _chunk(b"iCCP", b"name"),
    ],
    ids=["text", "long", "method", "international", "profile", "profile method", "profile cut"],
)
def test_texts_and_profiles_of_a_png_do_not_keep_it_from_being_read(
    photo: Image.Image, tmp_path: Path, caplog: pytest.LogCaptureFixture, chunk: bytes
) -> None:
    notes._said.clear()
    title = _chunk(b"tEXt", b"Title\0a photograph")
    for place, data in (("before", _with_chunks(photo, title + chunk)), ("after", _with_chunks(photo, b"", chunk))):
        (tmp_path / "a.png").write_bytes(data)
        assert difference(decode(data, f"{place}.png"), photo) == 0
        assert difference(decode(tmp_path / "a.png", f"{place} in a file.png"), photo) == 0
    assert ("before.png: its colour profile was ignored" in caplog.text) == (b"iCCP" in chunk)
    with pytest.raises(ImageError, match="damaged"):
        decode(_with_chunks(photo, chunk)[:-4000], "cut.png")


def test_many_texts_of_a_png_take_no_more_memory_than_some(photo: Image.Image, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(PngImagePlugin, "MAX_TEXT_MEMORY", 2000)
    monkeypatch.setattr(png_text, "_MOST_TOGETHER", 2000)
    for chunk in (_chunk(b"tEXt", b"k\0" + b"a" * 998), _chunk(b"zTXt", b"k\0\0" + zlib.compress(bytes(998)))):
        with pytest.raises(ValueError, match="Too much memory"):
            Image.open(io.BytesIO(_with_chunks(photo, chunk * 3))).load()
        assert difference(decode(_with_chunks(photo, chunk * 3), "many"), photo) == 0


def test_what_is_small_is_kept_of_a_png_with_a_text_that_is_too_large(photo: Image.Image) -> None:
    exif = Image.Exif()
    exif[0x0112] = 3
    turned = _chunk(b"eXIf", exif.tobytes()[6:])
    data = _with_chunks(photo, turned + _chunk(b"zTXt", b"Comment\0\0" + LARGE))
    assert difference(decode(data, "turned"), photo.transpose(Image.Transpose.ROTATE_180)) == 0


def test_a_tiff_of_numbers_that_pillow_does_not_read_says_so(photo: Image.Image, tmp_path: Path) -> None:
    values = np.asarray(photo.convert("L")).astype("<f2").tobytes()
    tags = [(256, 3, photo.width), (257, 3, photo.height), (258, 3, 16), (259, 3, 1), (262, 3, 1), (273, 4, 8)]
    tags += [(277, 3, 1), (278, 3, photo.height), (279, 4, len(values)), (339, 3, 3)]  # the last: of floats
    folder = struct.pack("<H", len(tags)) + b"".join(struct.pack("<HHII", n, kind, 1, v) for n, kind, v in tags)
    data = b"II*\0" + struct.pack("<I", 8 + len(values)) + values + folder + bytes(4)
    (tmp_path / "half.tif").write_bytes(data)
    for file in (data, tmp_path / "half.tif"):
        with pytest.raises(ImageError, match=r"half.tif: a TIFF of numbers .* convert it"):
            decode(file, "half.tif")


@pytest.mark.parametrize("name", ["a.tar", "a.parquet", "a.npy"])
def test_a_data_set_among_images_is_called_one(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"PAR1" + bytes(1000))
    with pytest.raises(ImageError, match=f"{name}: a data set, .* --shard"):
        open_image(tmp_path / name)
