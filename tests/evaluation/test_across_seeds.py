"""Models over several seeds of noise (Table 5): put together from what ``flowmo evaluate`` writes of real models."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

import warm_python
from flowmo import samples
from flowmo.cli.main import main
from flowmo.errors import DataError
from flowmo.evaluation.across_seeds import compare_seeds, read_evaluation
from flowmo.metrics.bootstrap import paired_bootstrap
from flowmo.presets import tiny
from flowmo.tokenizer import FlowMo
from flowmo.weights import save_model

ROOT = Path(__file__).parents[2]
SEEDS = (0, 1000)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two models of one encoder at two seeds, on the sample pictures; SSIM of the first seed only."""
    folder = tmp_path_factory.mktemp("seeds")
    torch.manual_seed(0)
    model = FlowMo(tiny())
    for name in ("a", "b"):
        with torch.no_grad():
            for parameter in model.decoder.parameters():
                parameter += 0.05 * torch.randn_like(parameter)
        save_model(model, folder / f"{name}.safetensors")
    models = [str(folder / f"{name}.safetensors") for name in ("a", "b")]
    for seed in SEEDS:
        metrics = ["psnr", "ssim"] if seed == SEEDS[0] else ["psnr"]
        settings = ["--metrics", *metrics, "--steps", "2", "--seed", str(seed), "--out", str(folder / str(seed))]
        assert main(["evaluate", *models, str(samples.paths()[0].parent), "--device", "cpu", *settings]) == 0
    return folder


def results(folder: Path, name: str, seeds: tuple[int, ...] = SEEDS) -> list[Path]:
    return [folder / str(seed) / f"{name}-standard.json" for seed in seeds]


def test_pictures_are_paired_and_seeds_averaged(folder: Path) -> None:
    found = compare_seeds({name: results(folder, name) for name in ("a", "b")})
    assert found["data"]["count"] == 8
    assert len(found["seeds"]) == 2
    tables = {name: [read_evaluation(path).table["psnr"] for path in results(folder, name)] for name in ("a", "b")}
    difference = paired_bootstrap(np.mean(tables["b"], 0), np.mean(tables["a"], 0))
    assert found["models"]["b"]["difference"]["psnr"] == difference._asdict()
    assert found["models"]["b"]["metrics"]["psnr"] == pytest.approx(np.mean(tables["b"]))
    assert found["models"]["b"]["by_seed"]["psnr"] == pytest.approx([table.mean() for table in tables["b"]])
    assert found["models"]["a"]["difference"]["psnr"] == {"mean": 0, "low": 0, "high": 0}
    assert found["metric_seeds"] == {"psnr": found["seeds"], "ssim": found["seeds"][:1]}
    assert len(found["models"]["b"]["by_seed"]["ssim"]) == 1
    assert found["models"]["a"]["fingerprint"] == found["models"]["b"]["fingerprint"]


def test_what_does_not_compare_is_refused(folder: Path) -> None:
    with pytest.raises(DataError, match="of different seeds"):
        compare_seeds({"a": results(folder, "a"), "b": results(folder, "b", SEEDS[::-1])})
    with pytest.raises(DataError, match="b has 1 evaluations"):
        compare_seeds({"a": results(folder, "a"), "b": results(folder, "b", SEEDS[:1])})
    with pytest.raises(DataError, match="of one seed"):
        compare_seeds({"a": results(folder, "a", (0, 0)), "b": results(folder, "b", (0, 0))})
    with pytest.raises(DataError, match="no result at"):
        compare_seeds({"a": [folder / "nothing.json"]})


def test_the_tool_and_the_table_of_the_readme(folder: Path, tmp_path: Path, render_readme: ModuleType) -> None:
    out = tmp_path / "posttraining.json"
    models = [f"{label}={','.join(map(str, results(folder, name)))}" for label, name in (("before", "a"), ("1b", "b"))]
    tool = [warm_python.python(), str(ROOT / "tools" / "compare_posttraining.py"), str(out), *models]
    subprocess.run(tool, env=warm_python.environment(), check=True, capture_output=True)
    content = json.loads(out.read_text())
    lines = render_readme.posttraining_table(content).splitlines()
    assert lines[2:4] == ["| | PSNR dB | SSIM, 1 seed |", "|---|---:|---:|"]
    before, after = content["models"].values()
    assert lines[4] == f"| before | {before['metrics']['psnr']:.2f} | {before['metrics']['ssim']:.3f} |"
    low, high = (after["difference"]["psnr"][end] for end in ("low", "high"))
    assert lines[5].startswith(f"| **after Stage 1B** | {after['metrics']['psnr']:.2f} ({low:+.2f} to {high:+.2f}) |")
