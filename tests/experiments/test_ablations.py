"""The rows of the paper's ablations, their commands, and how their numbers are compared."""

from __future__ import annotations

import json
import math
import subprocess
from pathlib import Path

import pytest

import warm_python
from flowmo.cli.main import main
from flowmo.errors import ConfigError, WeightsError
from flowmo.experiments.ablation_results import agreement, differences, gather, summary, table
from flowmo.experiments.ablations import METRICS, Scale, lab_scale, models, rows, small_scale, steps
from flowmo.perceptual import load_lpips

ROOT = Path(__file__).parents[2]
SCALES = {"small": small_scale(), "lab": lab_scale("flowmo-fewer-params")}


@pytest.mark.parametrize("scale", SCALES.values(), ids=SCALES)
def test_rows_models_and_steps_belong_together(scale: Scale) -> None:
    trained = [model.name for model in models(scale)]
    for k, model in enumerate(models(scale)):
        assert model.init is None or model.init in trained[:k]
    labels: set[tuple[str, str]] = set()
    for row in rows(scale):
        assert row.model in trained
        assert row.against is None or (row.table, row.against) in labels
        labels.add((row.table, row.label))
    assert len(labels) == len(rows(scale))
    done: set[str] = set()
    for step in steps(scale, "data", Path("out"), [0, 1], "cpu"):
        assert set(step.after) <= done
        assert step.name not in done
        done.add(step.name)
    assert {row.table for row in rows(scale)} == {"Table 3", "Table 4", "Table 5", "Table 7"}
    with pytest.raises(ConfigError, match="at least one seed"):
        steps(scale, "data", Path("out"), [], "cpu")


@pytest.mark.parametrize("scale", SCALES.values(), ids=SCALES)
def test_every_training_is_a_command_whose_settings_hold(scale: Scale, capsys: pytest.CaptureFixture[str]) -> None:
    """All that can be resolved without weights: trainings of new models; each differs from the first in its own."""
    shown = {}
    for step in steps(scale, "data", Path("out"), [0], "cpu"):
        if step.words[0] == "train" and "--init" not in step.words:
            assert main([*step.words, "--dry-run"]) == 0
            shown[step.of] = capsys.readouterr().out
    assert len(shown) >= 8
    assert len(set(shown.values())) == len(shown)


def test_the_papers_first_rows() -> None:
    """The text around the tables: a doubled patch, no perceptual loss and logit-normal levels cost rFID; PSNR collapses
    by the last; Stage 1B improves all; no one-step loss reaches L_sample."""
    found = {(row.table, row.label): row.paper for row in rows(SCALES["lab"])}
    base = found["Table 4", "FlowMo (fewer params.)"]
    for (name, _), paper in found.items():
        if name == "Table 4" and paper is not base:
            assert paper["rfid"] > base["rfid"]
        if name == "Table 7" and paper:
            assert paper["rfid"] >= found["Table 7", "L_sample, weight 0.01"]["rfid"]
    assert min(paper["psnr"] for (name, _), paper in found.items() if name == "Table 4") == 16.45


def test_an_interval_over_seeds_is_students() -> None:
    found = summary([1.0, 2.0, 3.0])
    assert found["mean"] == 2.0
    assert math.isclose(found["high"] - 2.0, 4.302653 / math.sqrt(3), rel_tol=1e-3)
    assert summary([5.0]) == {"mean": 5.0}
    mine = {seed: dict.fromkeys(METRICS, float(seed + 10)) for seed in (0, 1, 2)}
    theirs = {seed: dict.fromkeys(METRICS, float(seed)) for seed in (1, 2, 3)}
    assert differences(mine, theirs)["psnr"] == {"mean": 10.0, "low": 10.0, "high": 10.0}
    assert differences(mine, {}) == {}


@pytest.mark.parametrize(
    ("difference", "wanted", "word"),
    [
        ({"mean": 2.0, "low": 1.0, "high": 3.0}, 0.5, "yes"),
        ({"mean": 2.0, "low": 1.0, "high": 3.0}, -0.5, "no"),
        ({"mean": -2.0, "low": -3.0, "high": -1.0}, -0.5, "yes"),
        ({"mean": 2.0, "low": -1.0, "high": 5.0}, 0.5, "open"),
        ({"mean": 2.0}, 0.5, "open"),
        ({"mean": 2.0, "low": 1.0, "high": 3.0}, 0.0, "equal in the paper"),
    ],
)
def test_agreement_needs_a_sign(difference: dict[str, float], wanted: float, word: str) -> None:
    assert agreement(difference, wanted) == word


def test_rows_that_were_not_run_say_so(tmp_path: Path) -> None:
    result = gather(SCALES["small"], tmp_path, range(3))
    assert not any(row["metrics"] for row in result["rows"])
    lines = table(result, "Table 4").splitlines()[2:]
    assert len(lines) == 10
    assert all("not run yet" in line for line in lines)


def test_one_model_is_trained_measured_gathered_and_not_done_twice(shared: Path, tmp_path: Path) -> None:
    try:
        load_lpips("vgg"), load_lpips("alex")
    except WeightsError as error:
        pytest.skip(str(error))
    out, result = tmp_path / "out", tmp_path / "ablations.json"
    environment = warm_python.environment() | {
        "IMAGES": "32",
        "POST_IMAGES": "16",
        "COUNT": "4",
        "SEEDS": "1",
        "RESULT": str(result),
    }
    command = ["bash", str(ROOT / "runs" / "ablations.sh"), str(shared / "data" / "tiny64"), str(out), "--only", "base"]

    def run() -> str:
        done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        assert done.returncode == 0, done.stdout[-4000:] + "".join(p.read_text() for p in (out / "logs").iterdir())
        return done.stdout

    first = run()
    assert first.count(": done;") == 4  # one training, three samplers
    assert ": done;" not in run()
    found = {row["label"]: row for row in json.loads(result.read_text())["rows"] if row["seeds"]}
    assert {"FlowMo (fewer params.)", "without shifted sampler", "without guidance", "FlowMo-Lo"} == set(found)
    without, base = found["without guidance"], found["FlowMo (fewer params.)"]
    gained = without["metrics"]["psnr"]["mean"] - base["metrics"]["psnr"]["mean"]
    assert math.isclose(without["difference"]["psnr"]["mean"], gained, abs_tol=1e-9)
    assert without["agrees"]["psnr"] == "open"  # one seed says nothing


def test_a_lab_has_the_published_settings() -> None:
    first = steps(SCALES["lab"], "data", Path("out"), [0], "cuda")[0]
    assert {"--recipe", "published", "flowmo-fewer-params", "cuda"} <= set(first.words)
    assert not any(
        "curriculum" in word for step in steps(SCALES["lab"], "d", Path("o"), [0], "cpu") for word in step.words
    )
