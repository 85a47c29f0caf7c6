"""What lies in a folder beside good images: pipes, sockets, links, loops, locked and bottomless folders."""

from __future__ import annotations

import os
import shutil
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from flowmo import samples
from flowmo.cli.main import main
from flowmo.codec import TokenFile, coded_images, read_file, write_file
from flowmo.coding.files import open_token_files
from flowmo.data import decode, find_images, find_token_files, open_images
from flowmo.errors import DataError, ImageError, TokenFileError
from flowmo.quantize.tokens import Tokens

PHOTO = samples.paths()[0]
pytestmark = pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="makes named pipes")


@pytest.fixture(autouse=True)
def _no_hanging() -> Iterator[None]:
    def late(*_: object) -> None:
        raise AssertionError("hangs")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(60)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.fixture
def locked(monkeypatch: pytest.MonkeyPatch) -> str:
    """Folders of this name cannot be searched, not even by root, for whom permissions are nothing."""
    name = "locked"
    for function in ("scandir", "listdir"):

        def refusing(path: object = ".", real: object = getattr(os, function)) -> object:
            if os.fspath(path).rstrip("/").endswith(name):  # type: ignore[arg-type]
                raise PermissionError(13, "Permission denied", path)
            return real(path)  # type: ignore[operator]

        monkeypatch.setattr(os, function, refusing)
    return name


def odd_files(folder: Path) -> list[str]:
    os.mkfifo(folder / "pipe.jpg")
    (folder / "nowhere.png").symlink_to("gone")
    (folder / "itself.gif").symlink_to("itself.gif")
    (folder / "device.bmp").symlink_to("/dev/zero")
    (folder / "to-pipe.webp").symlink_to("pipe.jpg")
    with socket.socket(socket.AF_UNIX) as server:
        there = os.getcwd()
        os.chdir(folder)  # the name of a socket has at most 108 bytes
        server.bind("socket.tif")
        os.chdir(there)
    return ["device.bmp", "itself.gif", "nowhere.png", "pipe.jpg", "socket.tif", "to-pipe.webp"]


def test_what_is_no_regular_file_is_named_and_never_opened(tmp_path: Path) -> None:
    odd = odd_files(tmp_path)
    shutil.copy(PHOTO, tmp_path / "good.jpg")
    found = find_images([str(tmp_path)])
    assert sorted(p.name for p in found) == sorted([*odd[:-1], "good.jpg"])  # the last is another's link
    source = open_images(tmp_path)
    assert [source.name(i) for i in range(len(source))] == sorted([*odd, "good.jpg"])
    for index in range(len(source)):
        if source.name(index) == "good.jpg":
            assert source[index].mode == "RGB"
        else:
            with pytest.raises(ImageError, match=source.name(index)):
                source[index]
    with pytest.raises(ImageError, match="named pipe"):
        decode(tmp_path / "pipe.jpg", "x")
    for name in ("device.bmp", "socket.tif", "to-pipe.webp"):
        with pytest.raises(ImageError, match="not a regular file"):
            decode(tmp_path / name, name)


@pytest.mark.parametrize("suffix", [".tar", ".parquet", ".npy", ".jpg"])
def test_a_pipe_as_a_data_set(tmp_path: Path, suffix: str) -> None:
    os.mkfifo(tmp_path / f"a{suffix}")
    with pytest.raises(DataError, match="named pipe"):
        open_images(tmp_path / f"a{suffix}")
    if suffix in (".tar", ".parquet"):
        with pytest.raises(DataError, match="named pipe"):
            open_images(tmp_path)


def test_a_pipe_as_a_token_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.flowmo")
    for argument in (tmp_path, tmp_path / "a.flowmo"):
        (found,) = find_token_files([str(argument)])
        with pytest.raises(TokenFileError, match="named pipe"):
            read_file(found)


def test_what_is_no_token_file_is_named_and_the_others_are_taken(
    tmp_path: Path, locked: str, capsys: pytest.CaptureFixture[str]
) -> None:
    tokens = Tokens(torch.zeros(1, 16, 2, dtype=torch.int64), 9, (32, 32))
    folder = tmp_path / "tokens"
    (folder / locked).mkdir(parents=True)
    for name in ("a", "b"):
        write_file(folder / f"{name}.FLOWMO", TokenFile(tokens, 1, "crop", (32, 32)))
    (folder / "z.flowmo").symlink_to("nowhere")
    os.mkfifo(folder / "x.flowmo")
    (tmp_path / "broken").symlink_to("nowhere")
    bad: dict[str, str] = {}

    def on_bad(file: Path, error: Exception, *_: int) -> None:
        bad[file.name] = str(error)

    entries, targets, _ = open_token_files([str(folder), str(tmp_path / "broken")], tmp_path / "out", on_bad)
    assert [entry.name for entry in entries] == ["a.FLOWMO", "b.FLOWMO", "x.flowmo", "z.flowmo", locked, "broken"]
    assert len(set(targets)) == len(entries)
    assert len(list(coded_images(entries, 1, lambda tokens: None, on_bad))) == 2
    assert list(bad) == ["x.flowmo", "z.flowmo", locked, "broken"]
    assert "named pipe" in bad["x.flowmo"]
    assert "No such file" in bad["broken"]
    assert "Permission denied" in bad[locked]
    shutil.copy(PHOTO, tmp_path / "good.jpg")
    arguments = ["tokenize", str(tmp_path / "good.jpg"), str(tmp_path / "broken"), "--out", str(tmp_path / "again")]
    assert main(arguments) == 1
    assert "broken" in capsys.readouterr().err


def test_linked_class_folders_are_followed(tmp_path: Path) -> None:
    for folder in ("data/cat", "real/dog/deep"):
        (tmp_path / folder).mkdir(parents=True)
        shutil.copy(PHOTO, tmp_path / folder)
    shutil.copy(PHOTO, tmp_path / "real" / "dog" / "b.jpg")
    shutil.rmtree(tmp_path / "real" / "dog" / "deep")
    (tmp_path / "data" / "dog").symlink_to("../real/dog")
    source = open_images(tmp_path / "data")
    assert (len(source), source.classes) == (2, ["cat", "dog"])
    assert [source.label(i) for i in range(2)] == [0, 1]
    assert len(find_images([str(tmp_path / "data" / "dog"), str(tmp_path / "data")])) == 2


def test_loops_of_links_end(tmp_path: Path) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    shutil.copy(PHOTO, tmp_path / "a" / "b" / "x.jpg")
    (tmp_path / "a" / "b" / "up").symlink_to("..")
    (tmp_path / "a" / "self").symlink_to(".")
    (tmp_path / "top").symlink_to(tmp_path)
    assert [p.name for p in find_images([str(tmp_path)])] == ["x.jpg"]
    assert len(open_images(tmp_path)) == 1


def test_links_that_multiply_end(tmp_path: Path) -> None:
    for level in range(30):  # 2**30 ways to the last
        (tmp_path / str(level)).mkdir()
        for way in ("left", "right"):
            (tmp_path / str(level) / way).symlink_to(f"../{level + 1}")
    (tmp_path / "30").mkdir()
    shutil.copy(PHOTO, tmp_path / "30" / "x.jpg")
    found = find_images([str(tmp_path)])
    assert len([p for p in found if p.name == "x.jpg"]) == 1


def test_a_locked_folder_is_named_and_counted(tmp_path: Path, locked: str, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("eel", "cat", locked):
        (tmp_path / name).mkdir()
        shutil.copy(PHOTO, tmp_path / name)
    source = open_images(tmp_path)
    assert source.classes == ["cat", "eel", locked]
    assert [source.name(i) for i in range(3)][2] == locked
    assert [source.label(i) for i in range(3)] == [0, 1, None]
    assert "1 folders that cannot be searched" in source.describe()
    with pytest.raises(ImageError, match=r"locked: is a folder that cannot be searched \(Permission denied"):
        source[2]
    for path in (tmp_path / locked, tmp_path / locked / "x"):
        with pytest.raises(DataError):
            open_images(path)
    assert main(["tokenize", str(tmp_path), "--out", str(tmp_path / "out")]) == 1
    assert "locked" in capsys.readouterr().err


def test_a_bottomless_folder(tmp_path: Path) -> None:
    shutil.copy(PHOTO, tmp_path / "good.jpg")
    there = os.open(".", os.O_RDONLY)
    os.chdir(tmp_path)
    try:
        for _ in range(30):
            os.mkdir("d" * 200)
            os.chdir("d" * 200)
        shutil.copy(PHOTO, "deep.jpg")
    finally:
        os.fchdir(there)
        os.close(there)
    found = find_images([str(tmp_path)])
    assert found[0] == tmp_path / "good.jpg"
    assert len(found) == 2
    with pytest.raises(ImageError, match="too long"):
        decode(found[1], "deep")


def test_a_name_with_a_tilde(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copy(PHOTO, tmp_path / "~x.jpg")
    monkeypatch.chdir(tmp_path)
    assert len(open_images("~x.jpg")) == 1
    assert main(["tokenize", "~x.jpg", "--out", "out"]) == 0


def test_a_name_that_is_no_utf8(tmp_path: Path) -> None:
    name = os.fsdecode(b"\xff.jpg")
    shutil.copy(PHOTO, tmp_path / name)
    source = open_images(tmp_path)
    assert source.name(0) == name
    assert source[0].size == open_images(PHOTO)[0].size
