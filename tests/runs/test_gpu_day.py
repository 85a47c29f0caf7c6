"""runs/gpu_day.sh rehearsed on a CPU at tiny size, from a bare checkout: every part is measured, and once.
The parts are ``flowmo bench`` and a training, whose fast tests are in tests/cli and tests/profiling."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

import warm_python

ROOT = Path(__file__).parents[2]
PARTS = {"device", "train-tiny", "decode-tiny"}


@pytest.mark.nightly
def test_the_day_on_a_gpu_is_rehearsed(tmp_path: Path) -> None:
    bare = tmp_path / "checkout"
    for folder in ("src", "runs", "tools"):
        shutil.copytree(ROOT / folder, bare / folder, ignore=shutil.ignore_patterns("__pycache__"))
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH" and not k.startswith("FLOWMO")} | {
        "PYTHON": warm_python.python(),
        "DEVICE": "cpu",
        "SIZE": "tiny",
        "MINUTES": "30",
        "OMP_NUM_THREADS": "1",
        "FLOWMO_CACHE": str(tmp_path / "cache"),
        "https_proxy": "http://127.0.0.1:9",  # a network that is not there
        "http_proxy": "http://127.0.0.1:9",
    }

    def day(**more: str) -> subprocess.CompletedProcess[str]:
        command = ["bash", str(bare / "runs" / "gpu_day.sh"), str(tmp_path / "out")]
        return subprocess.run(
            command, env=environment | more, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=tmp_path
        )

    first = day(REST="6")
    assert first.returncode == 0, first.stdout[-4000:]
    out = tmp_path / "out"
    parts = {path.stem: json.loads(path.read_text()) for path in out.glob("*.json")}
    assert set(parts) == PARTS
    assert all(one["good"] for one in parts["device"]["agreements"])
    names = [one["name"] for one in parts["device"]["agreements"]]
    assert len(names) == len(set(names)) == 10
    assert {one["name"] for one in parts["device"]["attention"]} == {
        "plain",
        "flash attention",
        "memory-efficient",
        "cuDNN",
    }
    assert all(m["speed"]["images_per_second"] > 0 for m in parts["train-tiny"]["measured"])
    log = [json.loads(line) for line in (out / "run" / "log.jsonl").read_text().splitlines()]
    assert any("images_per_s" in line for line in log)
    table = (out / "table.md").read_text()
    for words in (
        "| sample, float32, compiled |",
        "| flash attention, bfloat16 |",
        "training step of tiny",
        "A training:",
    ):
        assert words in table

    (out / "decode-tiny.json").unlink()
    second = day(REST="0")
    assert second.returncode == 0, second.stdout[-4000:]
    assert second.stdout.count("measured before") == len(PARTS) - 1
    assert json.loads((out / "decode-tiny.json").read_text())["what"] == "decode"
