"""What users give: every kind of picture, folders, patterns, bad files, names that meet, results that exist."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from command_support import CAT, Command
from PIL import Image

from flowmo.presets import tiny
from flowmo.tokenizer import FlowMo
from flowmo.weights import save_model


def photo(width: int = 60, height: int = 44) -> Image.Image:
    return Image.open(CAT).convert("RGB").resize((width, height))


def test_every_kind_of_picture(flowmo: Command) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned a quarter
    Path("in").mkdir()
    photo().save("in/jpeg.jpg")
    photo().save("in/png.png")
    photo().save("in/webp.webp")
    photo().save("in/avif.avif")
    photo().save("in/animation.gif", save_all=True, append_images=[photo().rotate(90)])
    deep = np.asarray(photo().convert("L")).astype(np.uint16) * 257
    Image.fromarray(deep).save("in/sixteen-bit.png")
    photo().convert("L").save("in/grey.png")
    photo().convert("P").save("in/palette.png")
    photo().convert("RGBA").save("in/rgba.png")
    photo().convert("CMYK").save("in/cmyk.jpg")
    photo().save("in/rotated.jpg", exif=exif)
    photo(1, 1).save("in/dot.png")
    photo(3000, 1).save("in/line.png")
    result = flowmo("reconstruct", "in", "--steps", 1, "--json")
    assert result.code == 0, result.err
    assert len(result.json["pictures"]) == 13
    assert flowmo("tokenize", "in/rotated.jpg", "--out", "t").code == 0
    assert flowmo("info", "t/rotated.flowmo", "--json", model=False).json["original_size"] == [60, 44]


def test_bad_files_among_good_ones(flowmo: Command) -> None:
    photo().save("a.png")
    Path("b.png").write_bytes(Path("a.png").read_bytes()[:200])
    Path("c.jpg").write_text("no picture")
    Path("d.png").write_bytes(b"")
    photo().save("e.png")
    for command, extra, made in (("reconstruct", ["--steps", 1], ".png"), ("tokenize", [], ".flowmo")):
        result = flowmo(command, ".", "--out", command, "--json", "--batch-size", 2, *extra)
        assert result.code == 1
        assert [row["file"] for row in result.json["bad"]] == ["b.png", "c.jpg", "d.png"]
        assert "3 of 5 pictures" in result.err
        assert all(f"skipped {name}" in result.err for name in ("b.png", "c.jpg", "d.png"))
        assert Path(command, "a" + made).is_file()
        assert Path(command, "e" + made).is_file()
        assert not Path(command, "b" + made).exists()
        shutil.rmtree(command)  # not in the way of the next search


def test_bad_token_files_among_good_ones(flowmo: Command) -> None:
    flowmo("tokenize", CAT, "--out", "t")
    data = Path("t/cat.flowmo").read_bytes()
    Path("t/cut.flowmo").write_bytes(data[:-1])
    Path("t/turned.flowmo").write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    Path("t/text.flowmo").write_text("hello")
    Path("t/not-a-shard.safetensors").write_text("hello")
    result = flowmo("detokenize", "t", "t/not-a-shard.safetensors", "--out", "back", "--json")
    assert result.code == 1
    assert len(result.json["bad"]) == 4
    assert [Path(row["output"]) for row in result.json["pictures"]] == [Path("back/cat.png")]


def test_only_bad_files(flowmo: Command) -> None:
    Path("c.jpg").write_text("no picture")
    for command in ("reconstruct", "tokenize"):
        result = flowmo(command, "c.jpg", "--out", "o")
        assert result.code == 1
        assert not Path("o").exists()
    assert flowmo("tokenize", "c.jpg", "--shard", "s.safetensors").code == 1
    assert not Path("s.safetensors").exists()


def test_tokens_of_another_model(flowmo: Command, tmp_path: Path) -> None:
    torch.manual_seed(5)
    save_model(FlowMo(tiny()), tmp_path / "other.safetensors")
    flowmo("tokenize", CAT, "--out", "t")
    flowmo("tokenize", CAT, "--shard", "s.safetensors")
    for file in ("t", "s.safetensors"):
        result = flowmo("detokenize", file, "--model", tmp_path / "other.safetensors", "--out", "back", model=False)
        assert result.code == 1
        assert "another encoder" in result.err
        assert not Path("back").exists()


def test_folders_keep_their_structure_and_names_never_meet(flowmo: Command) -> None:
    for name in ("in/x/a.png", "in/y/a.png", "in/y/a.jpg", "in/A.png", "elsewhere/a.png"):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        photo().save(name)
    result = flowmo("tokenize", "in", "elsewhere/a.png", "--out", "o", "--json")
    assert result.code == 0
    outputs = {row["file"]: row["output"] for row in result.json["pictures"]}
    assert outputs == {
        "in/A.png": "o/A.flowmo",
        "in/x/a.png": "o/x/a.flowmo",
        "in/y/a.jpg": "o/y/a.flowmo",
        "in/y/a.png": "o/y/a.png.flowmo",
        "elsewhere/a.png": "o/a.png.flowmo",
    }
    assert all(Path(output).is_file() for output in outputs.values())


def test_patterns(flowmo: Command) -> None:
    for name in ("in/x/a.png", "in/y/b.png", "in/y/c.jpg"):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        photo().save(name)
    assert flowmo("tokenize", "in/*/*.png", "--out", "o").code == 0
    assert sorted(p.as_posix() for p in Path("o").rglob("*.flowmo")) == ["o/x/a.flowmo", "o/y/b.flowmo"]
    assert flowmo("detokenize", "o/**/*.flowmo", "--out", "back").code == 0
    assert sorted(p.as_posix() for p in Path("back").rglob("*.png")) == ["back/x/a.png", "back/y/b.png"]
    assert flowmo("tokenize", "in/*.bmp").code == 2


def test_nothing_is_overwritten_without_force(flowmo: Command) -> None:
    for command, argument, made in (
        ("reconstruct", CAT, "out/cat.side-by-side.png"),
        ("tokenize", CAT, "out/cat.flowmo"),
        ("detokenize", "out/cat.flowmo", "out/cat.png"),
    ):
        for old in Path("out").glob("*.png"):
            old.unlink()
        Path(made).parent.mkdir(exist_ok=True)
        Path(made).unlink(missing_ok=True)
        if command == "detokenize":
            flowmo("tokenize", CAT, "--out", "out")
        Path(made).write_text("mine")
        before = sorted(Path("out").iterdir())
        refused = flowmo(command, argument, "--out", "out")
        assert refused.code == 2
        assert made in refused.err
        assert "--force" in refused.err
        assert Path(made).read_text() == "mine"
        assert sorted(Path("out").iterdir()) == before
        assert flowmo(command, argument, "--out", "out", "--force").code == 0
        assert Path(made).read_bytes()[:4] != b"mine"


def test_a_source_is_never_overwritten(flowmo: Command) -> None:
    photo().save("a.png")
    before = Path("a.png").read_bytes()
    result = flowmo("reconstruct", "a.png", "--out", ".", "--force")
    assert result.code == 2
    assert "its own source" in result.err
    assert Path("a.png").read_bytes() == before


def test_earlier_results_are_not_taken_for_pictures(flowmo: Command) -> None:
    photo().save("a.png")
    assert len(flowmo("reconstruct", ".", "--steps", 1, "--json").json["pictures"]) == 1
    again = flowmo("reconstruct", ".", "--steps", 1, "--json", "--force")
    assert [row["file"] for row in again.json["pictures"]] == ["a.png"]
    assert flowmo("reconstruct", "flowmo-out", "--steps", 1, "--out", "o").code == 0  # when named, they are


@pytest.mark.parametrize(
    "arguments",
    [
        ["tokenize", "missing.jpg"],
        ["tokenize", "empty"],
        ["tokenize"],
        ["tokenize", CAT, "--labels"],
        ["tokenize", CAT, "--labels", "--shard", "s.safetensors"],
        ["tokenize", CAT, "--shard", "s.bin"],
        ["tokenize", CAT, "--shard", "s.safetensors", "--out", "o"],
        ["tokenize", CAT, "--out", "a-file"],
        ["tokenize", CAT, "--size", "33"],
        ["tokenize", CAT, "--size", "16384x16384"],
        ["tokenize", CAT, "--size", "0"],
        ["tokenize", CAT, "--fit", "zoom"],
        ["tokenize", CAT, "--batch-size", "0"],
        ["tokenize", CAT, "--num-tokens", "4"],
        ["tokenize", CAT, "--device", "toaster"],
        ["tokenize", CAT, "--steps", "3"],
        ["reconstruct", CAT, "--steps", "0"],
        ["reconstruct", CAT, "--steps", "999999999"],
        ["reconstruct", CAT, "--rho", "-1"],
        ["reconstruct", CAT, "--rho", "nan"],
        ["reconstruct", CAT, "--guidance", "inf"],
        ["reconstruct", CAT, "--interval", "0.5", "0.2"],
        ["reconstruct", CAT, "--seed", "-1"],
        ["reconstruct", CAT, "--seed", "99999999999999999999"],
        ["reconstruct", CAT, "--lpips", "missing"],
        ["reconstruct", CAT, "--mod", "x"],
        ["detokenize", "missing.flowmo"],
        ["detokenize", "empty"],
        ["bench", "both"],
        ["bench"],
        ["polish"],
        [],
    ],
    ids=lambda arguments: " ".join(Path(str(a)).name for a in arguments) or "nothing",
)
def test_wrong_arguments(flowmo: Command, arguments: list[str]) -> None:
    Path("empty").mkdir()
    Path("a-file").write_text("here first")
    result = flowmo(*arguments, model=len(arguments) > 1)
    assert result.code == 2
    assert result.out == ""
    assert len(result.err.strip().splitlines()[-1]) > 20
    assert sorted(p.name for p in Path().iterdir()) == ["a-file", "empty"]


@pytest.mark.parametrize("model", ["flowmo-mini-lo", "no-such-model", "missing.safetensors", "missing.pth", "a-file"])
def test_a_model_that_is_not_there(flowmo: Command, model: str) -> None:
    Path("a-file").write_text("no weights")
    result = flowmo("tokenize", CAT, "--model", model, model=False)
    assert result.code == 2
    assert model in result.err
    assert not Path("flowmo-out").exists()
