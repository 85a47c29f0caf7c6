"""The figures of the paper as a user makes them, from the packaged model and pictures; and what can go wrong."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from command_support import CAT, PICTURES, Command
from PIL import Image
from safetensors import safe_open

import warm_python
from flowmo.cli.main import build_parser
from flowmo.config import SamplerConfig, from_dict
from flowmo.evaluation.results import labels, read_result
from flowmo.flow import function_evaluations
from flowmo.presets import tiny
from flowmo.tokenizer import FlowMo
from flowmo.weights import load_model, read_about, save_model

FOLDER = CAT.parent


def plot_of(out: str | Path, name: str) -> np.ndarray:
    """A light picture with something on it."""
    with Image.open(Path(out, f"{name}.png")) as image:
        pixels = np.asarray(image.convert("RGB"))
    assert min(pixels.shape[:2]) > 300
    assert pixels[:4].min() == 255
    assert pixels.std() > 20
    return pixels


def result_of(out: str | Path, name: str) -> Any:
    return json.loads(Path(out, f"{name}.json").read_text())


def test_variance(flowmo: Command, learned: Path) -> None:
    result = flowmo(
        *("figure", "variance", FOLDER, "--model", learned, "--count", 5),
        *("--seeds", 3, "--seed", 2, "--out", "o", "--json"),
        model=False,
    )
    assert result.code == 0, result.err
    plot_of("o", "variance")
    found = result_of("o", "variance")
    assert found == result.json
    assert found["seed"] == "all pictures from seeds 2 to 4"
    content = found["content"]
    assert found["data"]["count"] == len(content["pictures"]) == 5
    assert all(picture["variance"] > 0 for picture in content["pictures"])
    mean = np.mean([picture["variance"] for picture in content["pictures"]])
    assert content["mean"]["variance"] == pytest.approx(mean)
    assert found["models"][0]["name"] == "learned.safetensors"
    assert read_result(Path("o/variance.json")).kind == "figure variance"


def test_discoloration_of_two_models(flowmo: Command, learned: Path, tmp_path: Path) -> None:
    red = load_model(learned)
    with torch.no_grad():
        red.decoder.readout.bias[0::3] += 0.2
    save_model(red, tmp_path / "red" / "model.safetensors")
    result = flowmo(
        *("figure", "discoloration", FOLDER, "--count", 3, "--steps", 2, "--out", "o"),
        *("--models", learned, tmp_path / "red"),
        model=False,
    )
    assert result.code == 0, result.err
    assert "learned" in result.out
    plot_of("o", "discoloration")
    ours, theirs = result_of("o", "discoloration")["content"]["models"]
    assert (ours["model"], theirs["model"]) == ("learned", "red")
    assert theirs["mean_color_error"]["mean"] > ours["mean_color_error"]["mean"] + 3
    assert theirs["mean_color_error"]["cast_red_green_blue"][0] > 10
    assert [step["t"] for step in ours["along_steps"]] == [1.0, 0.5]
    assert len(ours["pictures"]) == 3


def test_rate_distortion_perception(flowmo: Command, weights: Path) -> None:
    result = flowmo(
        *("figure", "rate-distortion-perception", FOLDER, "--scales", 1, 0, "--perception", "fd_efflite0"),
        *("--distortion", "mse", "--steps", 2, "--out", "o", "--json"),
        model=False,
    )
    assert result.code == 0, result.err
    plot_of("o", "rate-distortion-perception")
    found = result.json["content"]
    assert found["count"] == result.json["data"]["count"] == len(PICTURES)
    assert [point["noise_scale"] for point in found["points"]] == [0, 1]
    assert found["points"][0]["mse"] < found["points"][1]["mse"]
    assert found["points"][0]["psnr"] > found["points"][1]["psnr"]
    assert all(point["fd_efflite0"] > 0 for point in found["points"])
    assert all("kd_efflite0" in point for point in found["points"])


def test_figure_9_takes_the_papers_5000_pictures() -> None:
    """Where there are fewer, as above, all of them."""
    arguments = build_parser(["figure"]).parse_args(["figure", "rate-distortion-perception", "photos"])
    assert arguments.count == 5000


GRID = ("figure", "sampler-grid", FOLDER, "--count", 2)
GRID += ("--steps", 1, 2, "--rho", 1, 2, "--guidance", 1, 2)


def test_sampler_grid_and_its_best_stored(flowmo: Command, learned: Path, tmp_path: Path) -> None:
    result = flowmo(
        *(*GRID, "--interval", 0.1, 0.9, "--interval", 0.1, 1, "--out", "o", "--json"),
        *("--store", tmp_path / "new.safetensors", "--model", learned),
        model=False,
    )
    assert result.code == 0, result.err
    plot_of("o", "sampler-grid")
    found = result.json["content"]
    assert found["solvers"] == ["euler", "heun"]
    assert len(found["rows"]) == 2 * 2 * 2 * 3
    for row in found["rows"]:
        assert row["passes"] == function_evaluations(from_dict(SamplerConfig, row["sampler"]))
    assert found["best"] == min(found["rows"], key=lambda row: (row["lpips"], row["passes"]))
    assert not list(Path("o").glob("*.partial"))
    before, after = load_model(learned), load_model(tmp_path / "new.safetensors")
    assert after.config.sampler != before.config.sampler
    sampler = found["best"]["sampler"]
    assert after.config.sampler.num_steps == sampler["num_steps"]
    assert after.config.sampler.guidance_interval == tuple(sampler["guidance_interval"])
    assert after.fingerprint() == before.fingerprint()
    assert read_about(tmp_path / "new.safetensors") == {"images": 7}
    with safe_open(learned, "pt") as a, safe_open(tmp_path / "new.safetensors", "pt") as b:
        assert set(a.keys()) == set(b.keys())
        for name in a.keys():  # noqa: SIM118
            assert a.get_tensor(name).dtype == b.get_tensor(name).dtype
            assert a.get_tensor(name).numpy().tobytes() == b.get_tensor(name).numpy().tobytes()


def test_the_rule_of_psnr(flowmo: Command) -> None:
    result = flowmo(*GRID, "--within", 0, "--out", "o")
    assert result.code == 0, result.err
    found = result_of("o", "sampler-grid")["content"]
    assert found["best"]["psnr"] == max(row["psnr"] for row in found["rows"])
    assert "PSNR within 0 dB of the highest" in result.out
    assert sum(line.startswith("best ") for line in result.out.splitlines()) == 2  # its row, and the verdict
    assert "exist already" in flowmo(*GRID, "--out", "o").err


def test_a_killed_grid_goes_on(flowmo: Command, learned: Path) -> None:
    grid = [*map(str, (*GRID, "--model", learned)), "--steps", "1", "2", "3", "4", "--json"]
    words = [warm_python.python(), "-m", "flowmo", *grid, "--out", "killed"]
    process = subprocess.Popen(words, env=warm_python.environment(), stdout=subprocess.PIPE)
    partial, end = Path("killed/sampler-grid.partial"), time.monotonic() + 120
    while not partial.exists() or len(partial.read_text().splitlines()) < 3:
        assert process.poll() is None
        assert time.monotonic() < end
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert not Path("killed/sampler-grid.json").exists()
    kept = [json.loads(line)[1][0] for line in partial.read_text().splitlines()[:3]]  # PSNR of each
    again = flowmo(*grid, "--out", "killed", model=False)
    assert again.code == 0
    assert "measured before" in again.err
    rows = again.json["content"]["rows"]
    assert len(rows) == 32
    assert set(kept) <= {row["psnr"] for row in rows}
    assert not partial.exists()


def test_bad_pictures_are_named_and_counted(flowmo: Command) -> None:
    Path("in").mkdir()
    shutil.copy(CAT, "in/a.jpg")
    Path("in/b.jpg").write_text("no picture")
    shutil.copy(CAT, "in/c.jpg")
    result = flowmo("figure", "variance", "in", "--seeds", 2, "--steps", 1, "--out", "o")
    assert result.code == 1
    assert "skipped" in result.err
    assert "b.jpg" in result.err
    assert [picture["name"] for picture in result_of("o", "variance")["content"]["pictures"]] == ["a.jpg", "c.jpg"]
    assert len(result_of("o", "variance")["data"]["skipped"]) == 1


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["variance"], "DATA"),
        (["histogram", "in"], "invalid choice"),
        (["variance", "nowhere"], "no such file or folder"),
        (["variance", FOLDER, "--seeds", "1"], "at least 2 seeds"),
        (["variance", FOLDER, "--split", "test"], "no split 'test'"),
        (["variance", FOLDER, "--interval", "0.9", "0.1"], "guidance_interval"),
        (["rate-distortion-perception", FOLDER, "--scales", "-1"], "at least 0"),
        (["rate-distortion-perception", FOLDER, "--inception", "nowhere.pth"], "nowhere.pth"),
        (["rate-distortion-perception", FOLDER, "--count", "3"], "rFID needs at least 4 pictures, got 3; give more"),
        (["sampler-grid", FOLDER, "--criterion", "rfid", "--count", "3"], "rFID needs at least 4 pictures"),
        (["sampler-grid", FOLDER, "--store", "new.pth"], "new.pth"),
        (["sampler-grid", FOLDER, "--criterion", "beauty"], "invalid choice"),
        (["sampler-grid", FOLDER, "--lpips", "nowhere.pth"], "nowhere.pth"),
        (["discoloration", FOLDER, "--models", "flowmo-mini", "nothing"], "no model 'nothing'"),
        (["discoloration", FOLDER, "--models", *["flowmo-mini"] * 7], "at most 6"),
    ],
    ids=lambda value: " ".join(map(str, value)) if isinstance(value, list) else None,
)
def test_wrong_use(flowmo: Command, arguments: list[str], words: str) -> None:
    result = flowmo("figure", *arguments, "--out", "o", model=False)
    assert result.code == 2
    assert words in result.err
    assert not Path("o").exists()


def test_models_of_different_sizes_are_not_compared(flowmo: Command, weights: Path) -> None:
    result = flowmo("figure", "discoloration", FOLDER, "--models", "flowmo-mini", weights, model=False)
    assert result.code == 2
    assert "32 and 256 pixels" in result.err


def test_a_model_is_never_stored_over_itself(flowmo: Command, weights: Path) -> None:
    before = weights.read_bytes()
    assert "own source" in flowmo(*GRID, "--store", weights, "--force", "--out", "o").err
    torch.save(FlowMo(tiny()).state_dict(), "released.pth")
    result = flowmo(*GRID, "--store", "new.safetensors", "--out", "o", "--model", "released.pth", model=False)
    assert "released.pth is not such a file" in result.err
    assert weights.read_bytes() == before


def test_names_on_plots() -> None:
    assert labels(["flowmo-mini", "a/b/model.safetensors", "runs/lo", "x/flowmo_hi.pth"]) == [
        "flowmo-mini",
        "b",
        "lo",
        "flowmo_hi.pth",
    ]
    assert labels(["a/one.safetensors", "b/one.safetensors"]) == ["one (1)", "one (2)"]


def test_without_matplotlib_the_way_out_is_named(flowmo: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)  # as if it were not installed
    result = flowmo("figure", "variance", FOLDER, "--out", "o")
    assert result.code == 2
    assert "pip install 'flowmo[eval]'" in result.err
