"""runs/release_256.sh in small, as on a rented machine: nothing but torch, numpy, Pillow and safetensors; calls that
end too soon, and kills. Real pictures, the published LPIPS, and pieces of data that arrive one after the other.
The whole is a nightly test; its phases are those of test_packaged_script.py, its kills those of tests/training."""

from __future__ import annotations

import json
import os
import runpy
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import flowmo
import warm_python
from flowmo import samples
from flowmo.data import open_image, open_images, shorter_side_to
from flowmo.perceptual.weights import export_lpips
from flowmo.weights import read_about
from flowmo.weights.shards import INDEX

ROOT = Path(__file__).parents[2]
PICTURES = samples.paths()[0].parent
# What PyTorch itself asks for counts as PyTorch.
CORE = {"torch", "torchgen", "functorch", "numpy", "PIL", "safetensors", "flowmo"}
CORE |= {"sympy", "mpmath", "networkx", "jinja2", "markupsafe", "fsspec", "filelock", "typing_extensions", "setuptools"}
OWN = {"plan_release", "decode_images", "export_weights"}
BLOCKER = f"""
import sys

class OnlyTheCore:
    def __init__(self, finder):
        self.finder = finder

    @staticmethod
    def allows(name):
        top = name.partition(".")[0]
        return top in {CORE | OWN} or top in sys.stdlib_module_names or top.startswith("_")

    def find_spec(self, name, path=None, target=None):
        return self.finder.find_spec(name, path, target) if self.allows(name) else None

sys.meta_path[:] = map(OnlyTheCore, sys.meta_path)
for name in [name for name in sys.modules if not OnlyTheCore.allows(name)]:
    del sys.modules[name]
"""


@pytest.fixture
def run_tool(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """run_tool(name, arguments ...): a program of tools/, in this process."""

    def run(name: str, *arguments: object) -> None:
        monkeypatch.setattr(sys, "argv", [f"{name}.py", *map(str, arguments)])
        with pytest.raises(SystemExit) as end:
            runpy.run_path(str(ROOT / "tools" / f"{name}.py"), run_name="__main__")
        assert end.value.code == 0

    return run


@pytest.fixture
def pack(run_tool: Callable[..., None]) -> Callable[..., None]:
    return partial(run_tool, "pack_images")


class Machine:
    """A machine with the core alone, and the folders that are kept there between calls."""

    def __init__(self, folder: Path) -> None:
        self.data, self.out = folder / "pieces", folder / "out"
        (folder / "site").mkdir(parents=True)
        (folder / "site" / "sitecustomize.py").write_text(BLOCKER)
        self.environment = os.environ | {
            "PYTHONPATH": str(folder / "site"),
            "PYTHON": warm_python.python(),
            "OMP_NUM_THREADS": "1",
            "FLOWMO_CACHE": str(folder / "cache"),
        }

    def start(self, *more: str) -> subprocess.Popen[str]:
        script = [str(ROOT / "runs" / "release_256.sh"), str(self.data), str(self.out), "--rehearsal", *more]
        pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
        return subprocess.Popen(script, env=self.environment, start_new_session=True, **pipes)

    def call(self, *more: str) -> str:
        process = self.start(*more)
        output, _ = process.communicate(timeout=600)
        assert process.returncode == 0, output
        return output

    def kill_when(self, reached: Callable[[], bool], *more: str) -> None:
        """SIGKILL to all processes of a call, once ``reached``."""
        process, deadline = self.start(*more), time.monotonic() + 300
        while not reached():
            assert process.poll() is None, process.communicate()[0]
            assert time.monotonic() < deadline, "no progress"
            time.sleep(0.05)
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()

    def plan(self) -> dict[str, Any]:
        path = self.out / "plan.json"
        return json.loads(path.read_text()) if path.exists() else {}

    def steps(self, run: str) -> list[int]:
        """Images after each logged step of a run."""
        path = self.out / run / "log.jsonl"
        lines = path.read_text().splitlines() if path.exists() else []
        return [json.loads(line)["images"] for line in lines if line.endswith("}") and '"step"' in line]


@pytest.fixture
def machine(tmp_path: Path, pack: Callable[..., None]) -> Machine:
    machine = Machine(tmp_path)
    for split in ("train", "validation"):
        pack(PICTURES, machine.data, "--split", split, "--size", 64, "--limit", 6)
    for network in ("vgg", "alex"):
        export_lpips(network, machine.data / f"lpips_{network}.safetensors")
    return machine


@pytest.mark.nightly
def test_killed_stopped_and_continued(machine: Machine, pack: Callable[..., None]) -> None:
    refused = subprocess.run(
        [warm_python.python(), "-c", "import tqdm"], env=machine.environment, capture_output=True, text=True
    )
    assert "No module named 'tqdm'" in refused.stderr
    limit = ("--time-limit", "45s")

    machine.kill_when(lambda: bool(machine.steps("2-lpips")), *limit)
    before = machine.plan()
    assert min(before["images_per_second"].values()) > 0
    assert sorted(before["images"]) == ["crops", "lpips", "seeking", "whole"]
    assert before["images"]["lpips"] > before["images"]["crops"] >= 8  # two batches at least
    crops, start = (machine.out / name for name in ("1-crops/model.safetensors", "start.safetensors"))
    made = [path.stat().st_mtime_ns for path in (crops, start)]

    # The other two pictures arrive, and the call dies in the last half of the training.
    pack(PICTURES, machine.data, "--size", 64, "--piece-mb", 0.03)
    machine.kill_when(lambda: bool(machine.steps("3-whole")), *limit)
    assert [path.stat().st_mtime_ns for path in (crops, start)] == made

    # A call that ends at once still brings weights home; the plan stays, whatever the limit says now.
    assert "stopped at the end of this call" in machine.call("--call", "0s", "--time-limit", "1h")
    assert "raw" in read_about(machine.out / "raw" / INDEX)["weights"]
    assert machine.plan() == before

    machine.call()
    assert machine.steps("3-whole") == sorted(set(machine.steps("3-whole")))
    home = machine.out / "home"
    names = {path.name for path in home.iterdir()}
    assert names >= {INDEX, "plan.json", "card.json", "card.md"}
    assert max(path.stat().st_size for path in home.iterdir()) < 16e6
    card = json.loads((home / "card.json").read_text())
    assert [row["bytes"] for row in card["rates"]] == [72, 144]
    assert card["tokens_of_the_start"] is True
    trained, closed_form = flowmo.load(home), flowmo.load(start)
    assert trained.fingerprint() == closed_form.fingerprint()
    assert any(not torch.equal(trained.get_parameter(n), p) for n, p in closed_form.named_parameters())
    assert "measured already" in machine.call()


def test_wrong_use_is_told_before_anything_is_trained(machine: Machine) -> None:
    script = str(ROOT / "runs" / "release_256.sh")
    for arguments in ([], [machine.data], [machine.data, machine.out, "--limit", "1m"]):
        result = subprocess.run([script, *map(str, arguments)], capture_output=True, text=True)
        assert result.returncode == 2
        assert "--time-limit TIME" in result.stderr
    (machine.data / "validation-000.tar").unlink()
    process = machine.start()
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 2
    assert "has no split validation" in output


def test_broken_pictures_are_left_out_of_the_array(
    tmp_path: Path, run_tool: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    for path in samples.paths()[:3]:
        shutil.copy(path, tmp_path)
    (tmp_path / samples.paths()[1].name).write_text("not a picture")
    run_tool("decode_images", tmp_path, tmp_path / "arrays", "--size", 64)
    assert samples.paths()[1].name in capsys.readouterr().err
    array = np.load(tmp_path / "arrays" / "train.npy")
    for row, path in zip(array, (samples.paths()[0], samples.paths()[2]), strict=True):
        assert np.array_equal(row, np.asarray(shorter_side_to(open_image(path).image, 64)))


def test_pieces_hold_the_pictures(tmp_path: Path, pack: Callable[..., None]) -> None:
    """Each in a file of the size asked for, in an order that mixes them, and as close as WebP at that quality."""
    pack(PICTURES, tmp_path, "--size", 128, "--piece-mb", 0.03, "--quality", 95)
    pieces = sorted(tmp_path.glob("train-*.tar"))
    assert len(pieces) > 1
    assert max(path.stat().st_size for path in pieces) <= 30_000
    packed, originals = open_images(tmp_path, split="train", cache=tmp_path), open_images(PICTURES)
    assert len(packed) == len(originals) == 8
    wanted = [np.asarray(originals[i].resize((128, 128), Image.Resampling.BILINEAR), float) for i in range(8)]
    found = [np.asarray(packed[i], float) for i in range(8)]
    errors = np.array([[np.abs(a - b).mean() for b in wanted] for a in found])
    assert errors.min(1).max() < 4
    assert sorted(errors.argmin(1)) == list(range(8))
    assert list(errors.argmin(1)) != list(range(8))


def test_stored_pictures_keep_their_bytes(shared: Path, tmp_path: Path, pack: Callable[..., None]) -> None:
    """Those of Parquet files that have the size already."""
    pack(shared / "data" / "photos256", tmp_path, "--split", "validation", "--limit", 3)
    packed = open_images(tmp_path, split="validation", cache=tmp_path)
    source = open_images(shared / "data" / "photos256", split="validation")
    chosen = np.random.default_rng(0).permutation(len(source))[:3]
    for i, index in enumerate(chosen):
        assert np.array_equal(np.asarray(packed[i]), np.asarray(source[int(index)]))
