"""What is found out before any work: files that must not be written, devices, sizes, pictures that are results."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from PIL import Image

from flowmo.comparison.codecs import CODECS, get_codec, installed_codecs
from flowmo.data import leave_out_results, read_several
from flowmo.devices import usable_device
from flowmo.errors import ConfigError, DataError, ImageError
from flowmo.files import check_targets, check_writable
from flowmo.generation import PACKAGED_GENERATOR, load_generator, packaged_generator_of
from flowmo.presets import flowmo_mini, flowmo_mini_64
from flowmo.weights.sizes import size_warning


def picture(path: Path, color: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (40, 32), (color, 9, 9)).save(path)
    return path


def test_results_are_overwritten_by_force_and_sources_never(tmp_path: Path) -> None:
    source, made, new = tmp_path / "a.png", tmp_path / "b.png", tmp_path / "c.png"
    for path in (source, made):
        path.write_text("here")
    (tmp_path / "x").mkdir()
    check_targets([new], [source])
    check_targets([made], [source], force=True)
    with pytest.raises(ConfigError, match="1 result exists already"):
        check_targets([made, new])
    with pytest.raises(ConfigError, match="overwrite its own source"):
        check_targets([tmp_path / "x" / ".." / "a.png"], [source], force=True)
    for target in (source / "a.png", source / "deep" / "er" / "a.png"):
        with pytest.raises(ConfigError, match=r"a\.png is a file, so no results can go into it"):
            check_targets([target], force=True)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="permissions are those of POSIX")
def test_a_folder_that_may_not_be_written_to_is_told_before_any_work(tmp_path: Path) -> None:
    """A user who is not root, in a process of its own: folders that exist, will be made, and cannot be looked into."""
    shut, hidden = tmp_path / "shut", tmp_path / "hidden"
    shut.mkdir(mode=0o555)
    hidden.mkdir(mode=0o700)
    said = []
    for folder in (shut, shut / "new" / "er", hidden / "new"):
        end, start = os.pipe()
        child = os.fork()
        if not child:
            if os.geteuid() == 0:
                os.setuid(65534)
            try:
                check_writable(folder)
                words = "nothing"
            except ConfigError as error:
                words = str(error)
            os.write(start, words.encode())
            os._exit(0)
        os.waitpid(child, 0)
        said.append(os.read(end, 1000).decode())
        os.close(end)
        os.close(start)
    if os.geteuid() != 0:  # a user looks into their own folders, whatever others may
        said[2] = said[1]
    for words in said:
        assert "cannot be written to, so no results can go into" in words
    check_writable(tmp_path / "new")


def test_a_device_is_named_or_auto() -> None:
    assert usable_device("cpu") == torch.device("cpu")
    assert isinstance(usable_device("auto"), torch.device)
    for name in ("meta", "abacus", "cuda:99"):
        with pytest.raises(ConfigError, match=f"--device {name} cannot be used here"):
            usable_device(name)


def test_earlier_results_are_no_pictures_to_code(tmp_path: Path) -> None:
    photo, made = picture(tmp_path / "photos" / "a.png"), picture(tmp_path / "photos" / "out" / "a.png")
    out = made.parent
    assert leave_out_results([photo, made], [str(photo.parent)], out) == [photo]
    assert leave_out_results([photo, made], [str(made)], out) == [photo, made]  # it was asked for
    with pytest.raises(ImageError, match="no pictures but earlier results"):
        leave_out_results([made], [str(photo.parent)], out)


def test_a_size_that_costs_quality_is_told() -> None:
    assert size_warning((64, 64), flowmo_mini_64()) is None
    assert size_warning((512, 256), flowmo_mini()) is None  # with a transform any size is its own
    warning = size_warning((128, 128), flowmo_mini_64())
    assert warning is not None
    assert warning.startswith("warning: --size 128x128: the model was trained at 64x64 pixels")


def test_pictures_of_several_sets_are_numbered_through(tmp_path: Path) -> None:
    for name, count in (("a", 2), ("b", 3)):
        for i in range(count):
            picture(tmp_path / name / f"{i}.png", 50 * i)
    (tmp_path / "a" / "1.png").write_bytes(b"no picture")
    bad: list[str] = []
    sets = [str(tmp_path / name) for name in "ab"]
    found = read_several(sets, None, (32, 32), 4, lambda name, error: bad.append(name))
    assert found.places == [0, 2, 3]
    assert bad == ["1.png"]
    assert found.images.shape == (3, 3, 32, 32)
    assert found.images.dtype == torch.uint8
    (tmp_path / "a" / "0.png").write_bytes(b"nor this")
    with pytest.raises(DataError, match="none of the pictures can be read"):
        read_several(sets[:1], None, (32, 32), 4, lambda name, error: None)


def test_codecs_that_are_not_installed_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def without_webp(name: str) -> object:
        if name == "webp":
            raise ConfigError("Pillow was built without webp")
        return get_codec("jpeg")

    said: list[str] = []
    monkeypatch.setattr("flowmo.comparison.codecs.get_codec", without_webp)
    assert len(installed_codecs(said.append)) == len(CODECS) - 1
    assert said == ["note: Pillow was built without webp"]


def test_the_packaged_generator_comes_with_its_tokenizer() -> None:
    fingerprint = int(load_generator(PACKAGED_GENERATOR).config.tokens.fingerprint, 16)
    found = packaged_generator_of([7, fingerprint])
    assert found is not None
    assert found.config.tokens.fingerprint == f"{fingerprint:08x}"
    assert packaged_generator_of([7]) is None
