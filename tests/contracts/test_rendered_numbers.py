"""Numbers in the documents are those of results/, which are of the packaged model as it is."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

import flowmo
import warm_python
from flowmo.evaluation.results import read_result
from flowmo.provenance import weights_checksum
from flowmo.weights.load import PACKAGED

ROOT = Path(__file__).parents[2]
PROTOCOLS = [f"{PACKAGED}-{protocol}{rate}" for protocol in ("standard", "published") for rate in ("", "-18-bits")]
RATES = [f"rates/{path.stem}" for path in sorted((ROOT / "results" / "rates").glob("*.json"))]
NAMES = (*PROTOCOLS, *RATES, "comparison")


def test_documents_say_what_the_results_say() -> None:
    program = [warm_python.python(), ROOT / "tools" / "render_readme.py", "--check"]
    done = subprocess.run(program, env=warm_python.environment(), capture_output=True, text=True)
    assert done.returncode == 0, f"{done.stdout}{done.stderr}run python tools/render_readme.py"


@pytest.mark.parametrize("name", NAMES)
def test_results_are_whole_and_of_the_packaged_model(name: str) -> None:
    """Whoever replaces the packaged weights measures them again (docs/EVALUATION.md, Results)."""
    result = read_result(ROOT / "results" / f"{name}.json")
    assert result.code["modified"] is False
    assert result.models[0].sampler == flowmo.load().config.sampler
    assert result.models[0].sha256 == weights_checksum(flowmo.load())


def test_half_precision_is_measured_on_the_same_pictures() -> None:
    folder = ROOT / "results" / "precision"
    full, half = (read_result(folder / name / f"{PACKAGED}-standard.json") for name in ("fp32", "bf16"))
    assert full.code["modified"] is half.code["modified"] is False
    assert (full.data, full.models) == (half.data, half.models)
    assert (full.content.get("precision"), half.content["precision"]) == (None, "bf16")
    assert full.content["metrics"].keys() == half.content["metrics"].keys()


def test_the_results_are_of_the_same_pictures() -> None:
    assert len(RATES) == 6
    data = [read_result(ROOT / "results" / f"{name}.json").data for name in (*PROTOCOLS, *RATES)]
    assert all(one == data[0] for one in data)
