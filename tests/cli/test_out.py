"""Where results go: into a folder, or one image into the file that was named; and what is said of it."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from types import SimpleNamespace

import pytest
from command_support import CAT, PICTURES, Command
from PIL import Image

from flowmo.cli.arguments import runs
from flowmo.cli.main import main
from flowmo.text import what_is_kept


def test_one_image_goes_into_the_named_file(flowmo: Command) -> None:
    result = flowmo("reconstruct", CAT, "--steps", 1, "--out", "one.png", "--json")
    assert result.code == 0, result.err
    assert (result.json["pictures"][0]["output"], result.json["contact_sheet"]) == ("one.png", None)
    assert [path.name for path in Path().iterdir()] == ["one.png"]
    assert flowmo("tokenize", CAT, "--out", "tokens").code == 0
    assert flowmo("detokenize", "tokens/cat.flowmo", "--steps", 1, "--out", "back/two.PNG").code == 0
    assert Image.open("one.png").tobytes() == Image.open("back/two.PNG").tobytes()
    again = flowmo("reconstruct", CAT, "--out", "one.png")
    assert again.code == 2
    assert "exists already (one.png)" in again.err
    assert "overwrite its own source" in flowmo("reconstruct", "one.png", "--out", "one.png", "--force").err


@pytest.mark.parametrize("command", ["reconstruct", "detokenize"])
def test_several_images_and_other_formats_are_refused(flowmo: Command, command: str) -> None:
    given = list(PICTURES[:2])
    if command == "detokenize":
        assert flowmo("tokenize", *given, "--out", "tokens").code == 0
        given = sorted(Path("tokens").iterdir())
    result = flowmo(command, *given, "--out", "all.png")
    assert result.code == 2
    assert "2 images do not go into the one file all.png; give a folder, such as all" in result.err
    result = flowmo(command, given[0], "--out", "one.jpg")
    assert result.code == 2
    assert "written as PNG, not as one.jpg; give one.png, or a folder" in result.err
    for name in ("one.FLOWMO", "one.shard"):
        assert f"written as PNG, not as {name}" in flowmo(command, given[0], "--out", name).err
    assert not list(Path().glob("*.[pj][np]g"))


@pytest.mark.parametrize(
    "command",
    [
        "generate --out one.png",
        "tokenize x --out one.png",
        "tokenize x --out one.flowmo",
        "train x run.PTH",
        "compare x --out one.svg",
        "evaluate x --out numbers.json",
        "evaluate-generator x y --out numbers.json",
        "figure variance x --out one.pdf",
        "train x run.safetensors",
        "train-generator x run.safetensors",
        "posttrain x run.safetensors --init y",
    ],
)
def test_a_folder_never_gets_the_name_of_a_file(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    try:
        code = main(command.split())
    except SystemExit as error:
        code = error.code
    assert code == 2
    assert "is the name of a file, but the results are several files; give a folder, such as" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("link", ["loop", "gone"])
@pytest.mark.parametrize("command", ["reconstruct {} --out {}", "tokenize {} --out {}/in/it", "train {} {}"])
def test_a_link_to_nothing_is_told_before_any_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], command: str, link: str
) -> None:
    monkeypatch.chdir(tmp_path)
    os.symlink("loop" if link == "loop" else "nowhere", link)
    pictures = CAT.parent if command.startswith("train") else CAT
    words = command.format(pictures, link).split() + ["--preset", "tiny"] * command.startswith("train")
    assert main(words) == 2
    assert f"{link} is a link to nothing that can be found, so no results can go into it" in capsys.readouterr().err


@pytest.mark.parametrize(
    "words",
    [
        ["reconstruct", "x", "--out", ""],
        ["reconstruct", "x", "--out="],
        ["tokenize", "", "--out", "tokens"],
        ["train", "x", ""],
        ["info", ""],
        ["bench", "encode", "--out", ""],
    ],
)
def test_an_empty_name_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], words: list[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(words) == 2
    assert "an empty value; write what is meant" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_what_a_stopped_run_leaves(tmp_path: Path) -> None:
    assert what_is_kept(tmp_path / "run") == "nothing was trained yet, and the same command begins again"
    (tmp_path / "run" / "checkpoint-0000000008").mkdir(parents=True)
    assert what_is_kept(tmp_path / "run").startswith(f"the checkpoints in {tmp_path / 'run'} are kept")
    assert "none is left half-written" in what_is_kept(None)


def test_the_current_folder_has_a_name(flowmo: Command) -> None:
    assert flowmo("reconstruct", CAT, "--steps", 1, "--out", ".").out.rstrip().endswith("are in this folder")


def test_a_time_without_a_unit_is_said_in_seconds(capsys: pytest.CaptureFixture[str]) -> None:
    runs.tell_seconds.cache_clear()
    arguments = {"device": "cpu", "resume": None, "cooldown": None, "wandb": None, "command_line": "", "began": 0.0}
    for text, said in (("90", "--time-limit 90 is 90 seconds; write 90m for minutes"), ("90s", ""), (None, "")):
        for _ in range(2):  # said once
            runs.options_of(SimpleNamespace(**arguments, time_limit=text))  # type: ignore[arg-type]
        found = capsys.readouterr().err
        assert found.count("\n") == bool(said)
        assert said in found


@pytest.mark.parametrize("command", ["reconstruct", "tokenize"])
def test_a_full_disk_is_said_with_the_file(flowmo: Command, command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Image.Image, "save", full)
    monkeypatch.setattr(Path, "write_bytes", full)
    result = flowmo(command, CAT, "--out", "out")
    assert result.code == 2
    assert "No space left on device" in result.err
    assert f"out{os.sep}cat." in result.err
    assert not [path for path in Path("out").rglob("*") if path.is_file()]
