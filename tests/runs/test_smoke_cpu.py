"""runs/smoke_cpu.sh as a user runs it, on real photographs: every command of it ends well, and within five minutes."""

from __future__ import annotations

import json
import resource
import subprocess
from pathlib import Path

import warm_python
from flowmo import samples
from flowmo.data import find_token_files
from flowmo.evaluation.results import read_result

ROOT = Path(__file__).parents[2]


def test_the_smoke_run(shared: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    command = ["bash", str(ROOT / "runs" / "smoke_cpu.sh"), str(shared / "data" / "tiny64"), str(out)]
    before = processor_seconds()
    done = subprocess.run(
        command, env=warm_python.environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    assert done.returncode == 0, done.stdout[-4000:]
    assert processor_seconds() - before < 300  # of one processor, however busy the machine is
    first, second = done.stdout.index("time limit after"), done.stdout.index("resuming at")
    assert first < second < done.stdout.index("finished after")
    log = [json.loads(line) for line in (out / "1a" / "log.jsonl").read_text().splitlines()]
    losses = [line["total"] for line in log if "total" in line]
    assert losses[-1] < 0.8 * losses[0]
    assert {"psnr", "psnr_one_step", "psnr_thumbnail", "lpips"} <= set(log[-1])
    assert len(find_token_files([str(out / "tokens")])) == len(samples.paths())
    for folder in ("pictures", "again"):
        assert len(list((out / folder).rglob("*.png"))) >= len(samples.paths())
    results = [read_result(out / name) for name in ("results/1a-standard.json", "comparison/comparison.json")]
    assert [result.data.count for result in results] == [len(samples.paths())] * 2
    assert results[0].models[0].sha256 == results[1].models[0].sha256
    assert (out / "gallery.html").stat().st_size > 20_000


def processor_seconds() -> float:
    """Of all processes that this one started and that have ended, those of other tests too."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime + warm_python.processor_seconds()
