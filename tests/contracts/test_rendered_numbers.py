"""Numbers in the documents are those of results/, which are of the packaged model as it is."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import flowmo
from flowmo.evaluation.results import read_result
from flowmo.provenance import weights_checksum

ROOT = Path(__file__).parents[2]
NAMES = ("flowmo-mini-64-standard", "flowmo-mini-64-published", "comparison", "curves")


def test_documents_say_what_the_results_say() -> None:
    program = [sys.executable, ROOT / "tools" / "render_readme.py", "--check"]
    done = subprocess.run(program, capture_output=True, text=True)
    assert done.returncode == 0, f"{done.stdout}{done.stderr}run python tools/render_readme.py"


@pytest.mark.parametrize("name", NAMES)
def test_results_are_whole_and_of_the_packaged_model(name: str) -> None:
    """Whoever replaces the packaged weights measures them again (docs/EVALUATION.md, Results)."""
    result = read_result(ROOT / "results" / f"{name}.json")
    assert result.code["modified"] is False
    assert result.models[0].sampler == flowmo.load().config.sampler
    assert result.models[0].sha256 == weights_checksum(flowmo.load())


def test_the_results_are_of_the_same_pictures() -> None:
    whole = [read_result(ROOT / "results" / f"flowmo-mini-64-{name}.json").data for name in ("standard", "published")]
    assert whole[0] == whole[1]
