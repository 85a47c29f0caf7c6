"""Passes against quality and speed (O11): put together from evaluations of one model by several samplers."""

from __future__ import annotations

import json
import subprocess
import time
from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch import nn

import warm_python
from flowmo import samples
from flowmo.cli.main import main
from flowmo.config import SamplerConfig
from flowmo.errors import DataError
from flowmo.evaluation.across_seeds import compare_seeds, read_evaluation
from flowmo.experiments.decoding import compare_decoding, time_in_turn
from flowmo.flow import function_evaluations
from flowmo.presets import tiny
from flowmo.tokenizer import FlowMo
from flowmo.weights import load_model, save_model

ROOT = Path(__file__).parents[2]
ROWS = {"eight": ("a", "8", "1.5"), "one": ("a", "1", "1"), "student": ("b", "1", "1")}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A decoder with eight guided steps and with one; another decoder of its tokens with one; and one of others."""
    folder = tmp_path_factory.mktemp("decoding")
    torch.manual_seed(0)
    model = FlowMo(tiny())
    for name, changed in (("a", model.decoder), ("b", model.decoder), ("other", model.encoder)):
        _disturb(changed)
        save_model(model, folder / f"{name}.safetensors")
    for label, (name, steps, guidance) in (ROWS | {"other": ("other", "1", "1")}).items():
        sampler = ["--steps", steps, "--guidance", guidance, "--rho", "1", "--interval", "0.1", "0.9"]
        paths = [str(folder / f"{name}.safetensors"), str(samples.paths()[0].parent)]
        out = ["--metrics", "psnr", "--device", "cpu", "--out", str(folder / label)]
        assert main(["evaluate", *paths, *sampler, *out]) == 0
    return folder


def _disturb(module: nn.Module) -> None:
    with torch.no_grad():
        for parameter in module.parameters():
            parameter += 0.05 * torch.randn_like(parameter)


def result_of(folder: Path, label: str) -> Path:
    name = (ROWS | {"other": ("other", "", "")})[label][0]
    return folder / label / f"{name}-standard.json"


def test_passes_speed_and_differences_of_each_row(folder: Path) -> None:
    rows = {
        label: (load_model(folder / f"{name}.safetensors"), [result_of(folder, label)])
        for label, (name, _, _) in ROWS.items()
    }
    found = compare_decoding(rows, torch.rand(2, 3, 32, 32) * 2 - 1, repeats=25)  # a median that holds
    models = found["models"]
    asked: list[int] = []
    model = rows["eight"][0]
    model.decoder.image_in.register_forward_hook(lambda _, inputs, __: asked.append(len(inputs[0])))
    model.reconstruct(torch.zeros(1, 3, 32, 32), num_steps=8, rho=1, guidance_scale=1.5, guidance_interval=(0.1, 0.9))
    assert models["eight"]["passes"] == sum(asked) == 15
    assert [models[label]["passes"] for label in ("one", "student")] == [1, 1]
    assert models["eight"]["speedup"] == 1
    assert models["one"]["speedup"] > 3
    assert models["student"]["sampler"]["num_steps"] == 1
    student, eight = (read_evaluation(result_of(folder, label)).table["psnr"] for label in ("student", "eight"))
    assert models["student"]["difference"]["psnr"]["mean"] == pytest.approx((student - eight).mean())
    assert student.mean() == pytest.approx(models["student"]["metrics"]["psnr"])
    assert found["speed"]["machine"]["threads"] == torch.get_num_threads()
    swapped = rows | {"one": (rows["student"][0], rows["one"][1])}
    with pytest.raises(DataError, match="of one are of other weights"):
        compare_decoding(swapped, torch.zeros(1, 3, 32, 32), repeats=1)


def test_other_tokens_do_not_compare(folder: Path) -> None:
    with pytest.raises(DataError, match="of different fingerprints"):
        compare_seeds({name: [result_of(folder, name)] for name in ("one", "other")}, same="fingerprint")
    with pytest.raises(DataError, match="of different samplers"):
        compare_seeds({name: [result_of(folder, name)] for name in ("one", "eight")})


def test_all_take_their_turn_in_each_round() -> None:
    order: list[str] = []
    seconds = time_in_turn({"a": lambda: (order.append("a"), time.sleep(0.02)), "b": lambda: order.append("b")}, 2)
    assert order == ["a", "b"] * 3
    assert [len(times) for times in seconds.values()] == [2, 2]  # the first round does not count
    assert min(seconds["a"]) >= 0.02


def test_the_papers_sampler_takes_31_passes() -> None:
    assert function_evaluations(SamplerConfig()) == 31
    assert function_evaluations(SamplerConfig(num_steps=4, guidance_scale=1.0)) == 4


def test_the_tool_and_the_table_of_the_readme(folder: Path, tmp_path: Path, render_readme: ModuleType) -> None:
    out = tmp_path / "decoding.json"
    rows = [f"{label}={folder / name}.safetensors={result_of(folder, label)}" for label, (name, _, _) in ROWS.items()]
    tool = [warm_python.python(), str(ROOT / "tools" / "compare_decoding.py"), str(out), *rows]
    command = [*tool, "--batch-size", "2", "--repeats", "1"]
    done = subprocess.run(command, env=warm_python.environment(), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("eight: 15 passes, ")
    content = json.loads(out.read_text())
    lines = render_readme.decoding_table(content).splitlines()
    assert "batches of 2, median of 1 rounds" in lines[0]
    assert lines[2:4] == ["| | passes | images/s | times as fast | PSNR dB |", "|---|---:|---:|---:|---:|"]
    eight, one = content["models"]["eight"], content["models"]["one"]
    assert lines[4] == f"| eight | 15 | {eight['images_per_second']:.1f} | 1.0 | {eight['metrics']['psnr']:.2f} |"
    low, high = (one["difference"]["psnr"][end] for end in ("low", "high"))
    speed = f"{one['images_per_second']:.1f} | {one['speedup']:.1f}"
    assert lines[5].startswith(f"| one | 1 | {speed} | {one['metrics']['psnr']:.2f} ({low:+.2f}")
    assert f"{high:+.2f}" in lines[5]
