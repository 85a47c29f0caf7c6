"""Pictures to .flowmo files and shards and back, and the table of reconstruct."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from command_support import PAYLOAD, PICTURES, Command
from PIL import Image

import flowmo as package
from flowmo.codec import HEADER_SIZE, read_file, read_shard, write_shard
from flowmo.data import fit_image, open_image, to_tensor
from flowmo.perceptual.weights import SOURCES
from flowmo.weights import load_model

FEW = PICTURES[:3]


def pixels(path: Path) -> bytes:
    with Image.open(path) as image:
        return bytes(f"{image.mode} {image.size}", "ascii") + image.tobytes()


def test_files_of_the_stated_size_come_back_as_reconstruct_makes_them(flowmo: Command, weights: Path) -> None:
    assert flowmo("tokenize", *FEW, "--out", "tokens").code == 0
    for picture in FEW:
        assert Path("tokens", picture.stem + ".flowmo").stat().st_size == 24 + PAYLOAD == 24 + 36
    assert flowmo("detokenize", "tokens", "--out", "back", "--seed", 3).code == 0
    assert flowmo("reconstruct", *FEW, "--out", "again", "--seed", 3).code == 0
    assert flowmo("reconstruct", *FEW, "--out", "other", "--seed", 4).code == 0
    for name in (f"{picture.stem}.png" for picture in FEW):
        assert pixels(Path("back", name)) == pixels(Path("again", name))
        assert pixels(Path("again", name)) != pixels(Path("other", name))
    assert len({pixels(path) for path in Path("back").iterdir()}) == len(FEW)  # the tokens matter
    # and both are what the library does
    model = load_model(weights)
    image = to_tensor(fit_image(open_image(FEW[0]).image, 32, 32))[None]
    file = read_file(Path("tokens", FEW[0].stem + ".flowmo"), model.fingerprint())
    assert file.tokens == model.tokenize(image)
    assert file.original_size == (256, 256)


def test_a_guidance_that_acts_nowhere_is_said(flowmo: Command) -> None:
    assert flowmo("tokenize", *FEW, "--out", "tokens").code == 0
    for command in (("detokenize", "tokens"), ("reconstruct", *FEW)):
        idle = flowmo(*command, "--out", command[0], "--steps", 1, "--guidance", 2)
        assert "note: --guidance 2 changes nothing" in idle.err
        for more in (("--steps", 1), ("--steps", 1, "--guidance", 2, "--interval", 0, 1), ("--guidance", 2)):
            assert "note: --guidance" not in flowmo(*command, "--out", command[0], "--force", *more).err


def test_batches_do_not_change_a_picture(flowmo: Command) -> None:
    assert flowmo("reconstruct", *FEW, "--out", "one", "--batch-size", 1).code == 0
    assert flowmo("reconstruct", *FEW, "--out", "all", "--batch-size", 3).code == 0
    for picture in FEW:
        a, b = (to_tensor(open_image(Path(folder, picture.stem + ".png")).image) for folder in ("one", "all"))
        assert (a - b).abs().max() <= 1.01 * 2 / 255  # a rounding apart


def test_reconstruct_writes_pictures_and_numbers(flowmo: Command) -> None:
    result = flowmo("reconstruct", *FEW, "--out", "out", "--json", "--steps", 2).json
    assert [Path(row["file"]) for row in result["pictures"]] == FEW
    for row in result["pictures"]:
        assert (row["payload_bytes"], row["file_bytes"]) == (PAYLOAD, HEADER_SIZE + PAYLOAD)
        assert row["bits_per_pixel"] == 8 * PAYLOAD / 32**2
        with Image.open(row["output"]) as image, Image.open(row["side_by_side"]) as pair:
            assert image.size == (32, 32)
            assert pair.size == (2 * 128 + 4, 18 + 128)
            assert all((np.asarray(pair)[:18, x : x + 128] < 128).any() for x in (0, 132))  # a title above each
            # left the original as the model saw it, right the reconstruction, enlarged four times
            left, right = pair.crop((0, 18, 128, 146)), pair.crop((132, 18, 260, 146))
            assert right.resize((32, 32), Image.Resampling.NEAREST).tobytes() == image.tobytes()
            seen = fit_image(open_image(row["file"]).image, 32, 32)
            assert left.resize((32, 32), Image.Resampling.NEAREST).tobytes() == seen.tobytes()
            error = (to_tensor(image) - to_tensor(seen)).double().mul(127.5).square().mean()
        assert row["psnr"] == pytest.approx(float(10 * torch.log10(255**2 / error)), abs=1e-3)
    mean = sum(row["psnr"] for row in result["pictures"]) / 3
    assert result["mean"]["psnr"] == pytest.approx(mean)
    assert result["settings"]["num_steps"] == 2
    with Image.open("out/contact-sheet.png") as sheet:
        assert sheet.height >= 3 * 128
        assert sheet.width >= 3 * 128


def test_the_table_names_each_picture_and_the_mean(flowmo: Command) -> None:
    result = flowmo("reconstruct", *FEW, "--steps", 1)
    lines = result.out.splitlines()
    assert [line.split()[0] for line in lines[1:4]] == [picture.name for picture in FEW]
    assert lines[1].split()[1:3] == ["36", "60"]
    assert lines[4].startswith("mean of 3")
    assert "flowmo-out" in lines[-1]


def test_lpips_is_there_or_said_to_be_missing(flowmo: Command, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    small = flowmo("reconstruct", FEW[0], "--steps", 1, "--size", 16, "--out", "small", "--json")
    assert small.json["pictures"][0]["lpips"] is None
    assert "note:" in small.err
    damaged = tmp_path / "damaged.ckpt"
    damaged.write_bytes(b"nothing")
    assert flowmo("reconstruct", FEW[0], "--lpips", damaged).code == 2
    absent = replace(SOURCES["alex"], distribution="flowmo-has-no-such-package")
    monkeypatch.setitem(SOURCES, "alex", absent)  # a machine without the data package
    monkeypatch.setenv("FLOWMO_CACHE", str(tmp_path / "empty"))
    monkeypatch.delenv("FLOWMO_WEIGHTS_URL", raising=False)
    without = flowmo("reconstruct", FEW[0], "--steps", 1, "--out", "without")
    assert without.code == 0
    assert "n/a" in without.out
    assert "pip install" in without.err


@pytest.mark.parametrize(("fit", "size"), [("crop", (64, 64)), ("pad", (64, 100)), ("stretch", (64, 100))])
def test_original_size(flowmo: Command, fit: str, size: tuple[int, int]) -> None:
    Image.open(PICTURES[0]).resize((100, 64)).save("wide.png")
    assert flowmo("tokenize", "wide.png", "--fit", fit, "--out", "t").code == 0
    assert flowmo("detokenize", "t", "--original-size", "--out", "back").code == 0
    assert flowmo("detokenize", "t", "--out", "small").code == 0
    with Image.open("back/wide.png") as back, Image.open("small/wide.png") as small:
        assert (back.height, back.width) == size
        assert small.size == (32, 32)


def test_any_size_of_whole_patches(flowmo: Command) -> None:
    assert flowmo("tokenize", FEW[0], "--size", "48x64", "--out", "t").code == 0
    assert flowmo("tokenize", FEW[1], "--out", "t").code == 0
    assert flowmo("detokenize", "t", "--out", "back").code == 0  # two sizes in one run
    assert Image.open(f"back/{FEW[0].stem}.png").size == (64, 48)
    assert Image.open(f"back/{FEW[1].stem}.png").size == (32, 32)


def test_shard_with_labels_and_back(flowmo: Command) -> None:
    for i, name in enumerate(("cat/a.png", "cat/b.png", "ant/a.png")):
        Path("data", name).parent.mkdir(parents=True, exist_ok=True)
        Image.open(PICTURES[i]).resize((40 + i, 50)).save(Path("data", name))
    Path("data/ant/broken.jpg").write_bytes(b"no picture")
    result = flowmo("tokenize", "data", "--shard", "out/s.safetensors", "--labels", "--json")
    assert result.code == 1
    assert result.json["classes"] == ["ant", "cat"]
    assert "broken.jpg" in result.err
    shard = read_shard("out/s.safetensors")
    assert shard.names == ["ant/a.png", "cat/a.png", "cat/b.png"]
    assert shard.labels is not None
    assert shard.labels.tolist() == [0, 1, 1]
    assert shard.original_sizes is not None
    assert shard.original_sizes.tolist() == [[50, 42], [50, 40], [50, 41]]
    assert flowmo("detokenize", "out/s.safetensors", "--out", "back").code == 0
    assert flowmo("reconstruct", "data/cat", "data/ant/a.png", "--out", "again").code == 0
    # grouped otherwise in the shard, so compare up to rounding
    for shard_name, other in (("cat/b", "b"), ("cat/a", "a")):
        a, b = (
            to_tensor(open_image(p).image) for p in (Path("back", shard_name + ".png"), Path("again", other + ".png"))
        )
        assert (a - b).abs().max() <= 1.01 * 2 / 255


def test_names_in_a_shard_cannot_leave_the_folder(flowmo: Command, tmp_path: Path) -> None:
    flowmo("tokenize", *FEW, "--shard", "s.safetensors")
    shard = replace(read_shard("s.safetensors"), names=["../../evil.png", "/evil/evil.png", "C:\\evil\x00.png"])
    write_shard("s.safetensors", shard)
    result = flowmo("detokenize", "s.safetensors", "--out", "deep/down", "--json")
    assert result.code == 0
    outputs = [Path(row["output"]).resolve() for row in result.json["pictures"]]
    assert len(set(outputs)) == 3
    assert all((tmp_path / "deep/down") in path.parents and path.is_file() for path in outputs)


def test_as_a_program(weights: Path, tmp_path: Path) -> None:
    """In a process of its own: nothing but the result on stdout, no bar where there is no terminal."""
    argv = [sys.executable, "-m", "flowmo", "tokenize", str(FEW[0]), "missing\udcff.png", "--json", "--model"]
    Path(tmp_path, "missing\udcff.png").write_bytes(b"bad")  # a name that is no UTF-8
    environment = os.environ | {"PYTHONPATH": str(Path(package.__file__).parents[1])}
    result = subprocess.run(
        [*argv, str(weights)], cwd=tmp_path, env=environment, capture_output=True, timeout=120, check=False
    )
    assert result.returncode == 1, result.stderr
    assert result.stdout.lstrip().startswith(b"{")
    assert b"Traceback" not in result.stderr
    assert result.stderr.count(b"\n") == 2
    assert Path(tmp_path, "flowmo-out", FEW[0].stem + ".flowmo").stat().st_size == 60
