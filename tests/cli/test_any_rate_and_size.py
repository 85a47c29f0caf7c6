"""``fit-transform``, and the commands on its model: any rate, any size, files cut to a rate (O12)."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from flowmo.cli.main import main
from flowmo.codec import TokenFile, encode_file, read_file
from flowmo.presets import tiny
from flowmo.samples import paths as sample_paths
from flowmo.tokenizer import FlowMo
from flowmo.weights import save_model

SMALL = ["encoder.depth=1", "decoder.depth=1", "decoder.width=64", "decoder.heads=1", "image_size=128", "num_tokens=64"]


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model fitted on the sample photographs and parts of them."""
    folder = tmp_path_factory.mktemp("fit")
    rng = np.random.default_rng(0)
    for k, path in enumerate(sample_paths()):
        with Image.open(path) as image:
            photo = image.convert("RGB")
        for j in range(16):
            side = int(rng.integers(min(photo.size) // 2, min(photo.size) + 1))
            left, top = (int(rng.integers(length - side + 1)) for length in photo.size)
            photo.resize((128, 128), box=(left, top, left + side, top + side)).save(folder / f"{k}-{j}.png")
    out = folder / "start.safetensors"
    assert main(["fit-transform", str(folder), "--out", str(out), "--set", *SMALL]) == 0
    return out


@pytest.fixture(scope="module")
def photo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A photograph of 203 x 154 pixels: no multiple of 16."""
    path = tmp_path_factory.mktemp("photo") / "photo.png"
    with Image.open(sample_paths()[0]) as image:
        image.convert("RGB").resize((203, 154)).save(path)
    return path


def psnr(a: Path, b: Path) -> float:
    with Image.open(a) as x, Image.open(b) as y:
        assert x.size == y.size
        error = np.asarray(x.convert("RGB"), float) - np.asarray(y.convert("RGB"), float)
    return float(10 * np.log10(255**2 / (error**2).mean()))


def test_it_will_not_overwrite(start: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fit-transform", str(start.parent), "--out", str(start)]) == 2
    assert "exists already" in capsys.readouterr().err


def test_a_preset_without_a_transform_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fit-transform", "photos", "--out", str(tmp_path / "a.safetensors"), "--preset", "flowmo-lo"]) == 2
    assert "has no transform" in capsys.readouterr().err


def test_a_photograph_as_it_is_and_back(start: Path, photo: Path, tmp_path: Path) -> None:
    quality = []
    for bits in (9, 18, 56):
        tokens, back = tmp_path / f"t{bits}", tmp_path / f"b{bits}"
        flags = ["--model", str(start), "--size", "original", "--bits-per-token", str(bits)]
        assert main(["tokenize", str(photo), "--out", str(tokens), *flags]) == 0
        file = read_file(tokens / "photo.flowmo")
        assert (file.original_size, file.fit, file.tokens.image_size) == ((154, 203), "whole", (160, 208))
        assert (file.tokens.bits_per_token, file.tokens.num_tokens) == (bits, 130)
        assert main(["detokenize", str(tokens), "--out", str(back), "--model", str(start)]) == 0
        quality.append(psnr(photo, back / "photo.png"))
    assert quality[0] + 0.5 < quality[1] < quality[2] - 0.5
    assert quality[2] > 19


def test_a_cut_file_is_the_file_of_the_lower_rate(start: Path, photo: Path, tmp_path: Path) -> None:
    for name, flags in (("whole", []), ("cut", ["--bits-per-token", "18"])):
        assert main(["tokenize", str(photo), "--out", str(tmp_path / name), "--model", str(start), *flags]) == 0
    whole = read_file(tmp_path / "whole" / "photo.flowmo")
    cut = TokenFile(whole.tokens.truncate(18), whole.fingerprint, whole.fit, whole.original_size)
    assert encode_file(cut) == (tmp_path / "cut" / "photo.flowmo").read_bytes()


@pytest.mark.parametrize(("flags", "bits"), [(["--bytes", "144"], 18), (["--bits-per-pixel", "0.0703125"], 18)])
def test_rates_in_bytes_and_bits_a_pixel(
    flags: list[str], bits: int, start: Path, photo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["tokenize", str(photo), "--out", str(tmp_path), "--model", str(start), "--json"]
    assert main([*command, *flags]) == 0
    assert json.loads(capsys.readouterr().out)["payload_bytes"] == 64 * bits // 8
    assert read_file(tmp_path / "photo.flowmo").tokens.bits_per_token == bits


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--bytes", "1"], "at least 1 bits each: 8 bytes"),
        (["--bits-per-token", "57"], "has 56 bits a token"),
        (["--size", "original", "--fit", "pad"], "leave out --fit pad"),
    ],
)
def test_what_cannot_be(
    flags: list[str], said: str, start: Path, photo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["tokenize", str(photo), "--out", str(tmp_path / "t"), "--model", str(start), *flags]) == 2
    assert said in capsys.readouterr().err


def test_a_model_of_one_rate_and_size_says_so(photo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save_model(FlowMo(tiny()), model := tmp_path / "tiny.safetensors")
    for flags, said in ((["--bytes", "72"], "one rate alone"), (["--size", "original"], "codes 32x32 pixels")):
        assert main(["tokenize", str(photo), "--out", str(tmp_path), "--model", str(model), *flags]) == 2
        assert said in capsys.readouterr().err


def test_reconstruct_at_a_rate(start: Path, photo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["reconstruct", str(photo), "--out", str(tmp_path), "--model", str(start), "--json"]
    assert main([*command, "--size", "original", "--bytes", "300"]) == 0
    row = json.loads(capsys.readouterr().out)["pictures"][0]
    assert row["payload_bytes"] == 130 * (300 * 8 // 130) // 8 + 1
    with Image.open(row["output"]) as image:
        assert image.size == (203, 154)


def test_a_shard_at_a_rate(start: Path, photo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "tokens.shard"
    assert main(["tokenize", str(photo), "--out", str(out), "--model", str(start), "--bytes", "144"]) == 0
    capsys.readouterr()
    assert main(["detokenize", str(out), "--out", str(tmp_path / "back"), "--model", str(start)]) == 0
    assert len(list((tmp_path / "back").glob("*.png"))) == 1


def test_data_with_splits_are_fitted_on_their_training_part(
    start: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    crops = sorted(start.parent.glob("*.png"))
    for split, chosen in (("train", crops[:40]), ("validation", crops[40:45])):
        (tmp_path / "data" / split).mkdir(parents=True)
        for path in chosen:
            (tmp_path / "data" / split / path.name).write_bytes(path.read_bytes())
    command = ["fit-transform", str(tmp_path / "data"), "--out", str(tmp_path / "s.safetensors"), "--set", *SMALL]
    assert main(command) == 0
    said = capsys.readouterr()
    assert "fitted on 40 images" in said.out
    assert [line.split(":")[0] for line in said.err.splitlines()] == ["1 of 3", "2 of 3", "3 of 3"]


def test_compare_draws_the_whole_curve_of_one_model(
    start: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], lpips: None
) -> None:
    """Each number of bytes is a row of the same model, nearer the images with each; what it cannot reach is none."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for path in sorted(start.parent.glob("*-0.png"))[:4]:
        (folder / path.name).write_bytes(path.read_bytes())
    command = [
        "compare",
        str(folder),
        "--model",
        str(start),
        "--bytes",
        "72",
        "144",
        "288",
        "448",
        "--metrics",
        "--json",
    ]
    assert main([*command, "--out", str(tmp_path / "o")]) == 0
    rows = [row for row in json.loads(capsys.readouterr().out)["rows"] if row["group"] == "model"]
    assert [row["payload_bytes"] for row in rows] == [72, 144, 288, 448]
    assert [row["target"] for row in rows] == [72, 144, 288, None]
    quality = [row["metrics"]["psnr"] for row in rows]
    assert all(b > a + 0.5 for a, b in pairwise(quality)), quality


def test_another_size_than_the_model_was_trained_at_is_warned_of(
    start: Path, photo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """By every command that codes images; a model with a transform codes any size as well, and nothing is said."""
    save_model(FlowMo(tiny()), tmp_path / "tiny.safetensors")

    def said(command: str, out: str, model: Path, *more: str) -> str:
        flags = ["--model", str(model), "--device", "cpu", "--out", str(tmp_path / out), *more]
        assert main([command, str(photo), *flags]) == 0
        return capsys.readouterr().err

    for command in ("tokenize", "reconstruct"):
        assert "trained at 32x32 pixels" in said(command, f"{command}-a", tmp_path / "tiny.safetensors", "--size", "64")
        assert "trained at" not in said(command, f"{command}-b", tmp_path / "tiny.safetensors", "--size", "32")
        assert "trained at" not in said(command, f"{command}-c", tmp_path / "tiny.safetensors")
        assert "trained at" not in said(command, f"{command}-d", start, "--size", "64")


def test_a_rate_curve_in_one_call_that_goes_on_where_it_was(
    start: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Lower rates cost less and come less near; each is a result of its own, which is not measured twice."""
    flags = ["--metrics", "psnr", "--limit", "6", "--out", str(tmp_path), "--json"]
    command = ["evaluate", str(start), str(start.parent), *flags]
    assert main([*command, "--bytes", "72", "448", "144"]) == 0
    rows = json.loads(capsys.readouterr().out)["results"]
    sizes = [row["content"]["rate"]["payload_bytes"] for row in rows]
    assert sizes == [72, 144, 448]  # of 64 tokens of 9, 18 and 56 bits
    assert all(a < b for a, b in pairwise(row["content"]["metrics"]["psnr"] for row in rows))
    assert main([*command, "--bits-per-token", "9", "30"]) == 0
    captured = capsys.readouterr()
    again = json.loads(captured.out)["results"]
    assert again[0] == rows[0]
    assert captured.err.count("measured already") == 1
    assert [row["content"]["rate"]["bits_per_pixel"] for row in again] == [9 / 256, 30 / 256]


def test_rates_of_a_model_with_one_rate_are_refused(
    tmp_path: Path, start: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = tmp_path / "tiny.safetensors"
    save_model(FlowMo(tiny()), model)
    command = ["evaluate", str(model), str(start.parent), "--metrics", "psnr", "--limit", "2", "--out", str(tmp_path)]
    assert main([*command, "--bits-per-token", "9"]) == 2
    assert "one rate alone" in capsys.readouterr().err


def test_the_closed_form_code_is_a_row_of_a_comparison(
    start: Path, tmp_path: Path, lpips: None, capsys: pytest.CaptureFixture[str]
) -> None:
    """Fitted on the training split, or read from the file of fit-transform; a trained model is refused."""
    data = tmp_path / "data"
    for split, part in (("train", slice(12, 72)), ("validation", slice(0, 4))):
        (data / split).mkdir(parents=True)
        for path in sorted(start.parent.glob("*.png"))[part]:
            (data / split / path.name).write_bytes(path.read_bytes())
    command = ["compare", str(data), "--models", "--codecs", "transform", "--size", "128x128", "--metrics"]
    fitted, given = (tmp_path / name for name in ("fitted", "given"))
    assert main([*command, "--bytes", "144", "448", "--out", str(fitted)]) == 0
    assert main([*command, "--bytes", "144", "448", "--out", str(given), "--transform", str(start)]) == 0
    for out in (fitted, given):
        rows = json.loads((out / "comparison.json").read_text())["content"]["rows"]
        psnr_of = {row["payload_bytes"]: row["metrics"]["psnr"] for row in rows if row["name"] == "transform"}
        thumbnails = {row["target"]: row["metrics"]["psnr"] for row in rows if row["name"] == "thumbnail"}
        assert sorted(psnr_of) == [144, 448]
        assert {row["group"] for row in rows if row["name"] == "transform"} == {"tokenizer"}  # no model of ours
        assert psnr_of[448] > psnr_of[144] + 1
        assert psnr_of[448] > thumbnails[448]
        shares = [row["metrics"].get("beats_transform") for row in rows if row["name"] == "thumbnail"]
        assert all(share is not None and share < 1 for share in shares)
    trained = tmp_path / "tiny.safetensors"
    save_model(FlowMo(tiny()), trained)
    refused = [*command, "--bytes", "144", "--out", str(tmp_path / "refused"), "--transform", str(trained)]
    assert main(refused) == 2
    assert "no closed-form code" in capsys.readouterr().err


def test_bench_compare_and_gallery_warn_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save_model(FlowMo(tiny()), tmp_path / "tiny.safetensors")
    flags = ["--model", str(tmp_path / "tiny.safetensors"), "--device", "cpu", "--size", "48", "--steps", "1"]
    assert main(["bench", "encode", *flags, "--repeats", "1", "--batch-size", "1"]) == 0
    assert "trained at 32x32 pixels" in capsys.readouterr().err
    folder = tmp_path / "photos"
    folder.mkdir()
    for path in sample_paths()[:2]:
        (folder / path.name).write_bytes(path.read_bytes())
    for command, out, more in (("compare", "c", ["--codecs", "jpeg"]), ("gallery", "g.html", ["--codecs", "jpeg"])):
        flags = ["--model", str(tmp_path / "tiny.safetensors"), "--device", "cpu", "--size", "48", *more]
        assert main([command, str(folder), *flags, "--out", str(tmp_path / out)]) == 0
        assert "trained at 32x32 pixels" in capsys.readouterr().err
