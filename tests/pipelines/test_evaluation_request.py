"""An evaluation as a program asks for it: by names, in one call."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from flowmo import samples
from flowmo.errors import ConfigError
from flowmo.evaluation.results import read_result
from flowmo.pipelines.evaluation import EvaluationRequest, evaluate_all
from flowmo.pipelines.loading import LoadOptions

PAGE = Path(__file__).parents[2] / "docs" / "EVALUATION.md"


def test_the_documented_call_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (program,) = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FLOWMO_CACHE", str(tmp_path / "cache"))
    names: dict[str, Any] = {}
    exec(program.replace('"photos/"', repr(str(samples.paths()[0].parent))), names)
    written = read_result(tmp_path / "out" / "notebook" / "flowmo-mini-standard.json")
    assert (written.data.count, names["result"]) == (4, written)
    assert 20 < written.content["metrics"]["psnr"] < 40
    (again,) = evaluate_all(names["asked"])  # what has been measured is read
    assert again == written


def test_requests_that_cannot_be_are_refused_before_any_work(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="say what to measure"):
        EvaluationRequest("photos", tmp_path)
    with pytest.raises(ConfigError, match="are for FlowMo models"):
        EvaluationRequest("photos", tmp_path, peers=["vq=file"], load=LoadOptions(precision="bf16"))
