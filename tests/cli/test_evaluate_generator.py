"""``flowmo evaluate-generator`` in half precision, compiled, and by several processes."""

from __future__ import annotations

import json
import subprocess
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

import warm_python
from flowmo import samples
from flowmo.cli.main import main
from flowmo.data import fit_image, open_image, open_images
from flowmo.errors import DataError
from flowmo.evaluation import reference
from flowmo.evaluation.class_agreement import class_agreement
from flowmo.evaluation.generated import Samples, measure_generated
from flowmo.evaluation.reference import adm_reference, reference_of
from flowmo.evaluation.results import read_result
from flowmo.metrics.features import faster
from flowmo.metrics.statistics import RunningStatistics
from played_processes import Thread

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLOWMO_CACHE", str(tmp_path / "cache"))


def photographs(count: int, size: int, shift: int = 0) -> np.ndarray:
    """Squares cut from the sample photographs at different places, uint8 N H W 3."""
    wide = [np.asarray(fit_image(open_image(path).image, 2 * size, 2 * size)) for path in samples.paths()]
    places = np.random.RandomState(shift).randint(0, size, (count, 2))
    return np.stack([wide[k % len(wide)][y : y + size, x : x + size] for k, (y, x) in enumerate(places)])


@pytest.fixture
def data(tmp_path: Path) -> list[str]:
    """Samples with labels, 40 of two classes, and a folder of 38 pictures of these classes, of which one is broken."""
    return written(tmp_path, 40, 38)


def written(tmp_path: Path, made: int, real: int) -> list[str]:
    np.savez(tmp_path / "made.npz", arr_0=photographs(made, 48), arr_1=np.arange(made) % 2)
    for k, pixels in enumerate(photographs(real, 48, shift=1)):
        folder = tmp_path / "real" / ("a", "b")[k % 2]
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(folder / f"{k:02}.png")
    (tmp_path / "real" / "a" / "04.png").write_bytes(b"no picture")
    return [str(tmp_path / "made.npz"), str(tmp_path / "real")]


def result_of(folder: Path) -> dict[str, Any]:
    return read_result(folder / "made.json").content


SMALL_BATCHES = """
import sys
from flowmo.cli.main import main
from flowmo.evaluation import reference
reference.BATCH = 8
sys.exit(main(sys.argv[1:]))
"""


def test_two_processes_find_what_one_finds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """torchrun and gloo, with the genuine Inception and the genuine classifier; each takes whole batches, of which
    samples and reference have two."""
    (tmp_path / "program.py").write_text(SMALL_BATCHES)
    monkeypatch.setattr(reference, "BATCH", 8)
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    begin = [warm_python.python(), *launcher, str(tmp_path / "program.py")]
    arguments = ["evaluate-generator", *written(tmp_path, 12, 13), "--device", "cpu", "--json"]
    environment = warm_python.environment() | {"FLOWMO_CACHE": str(tmp_path / "of two")}
    done = subprocess.run(
        [*begin, *arguments, "--out", str(tmp_path / "two")],
        env=environment, capture_output=True, text=True, timeout=400,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert len(json.loads(done.stdout)["results"]) == 1  # one process prints
    assert main([*arguments, "--out", str(tmp_path / "one")]) == 0
    one, two = result_of(tmp_path / "one"), result_of(tmp_path / "two")
    assert {"fid", "sfid", "kid", "precision", "recall", "agreement"} <= set(one["metrics"])
    assert one["metrics"]["fid"] > 1
    assert two["metrics"] == pytest.approx(one["metrics"], rel=1e-4, abs=1e-7)
    assert one["reference"]["count"] == two["reference"]["count"] == 12
    assert len(list((tmp_path / "of two" / "statistics").iterdir())) == 1


@pytest.mark.nightly
def test_half_precision_and_compiled_networks(
    data: list[str], tmp_path: Path, compiled_shapes: list[tuple[str, tuple[int, ...]]]
) -> None:
    """Every batch has one shape; the numbers are nearly those of float32, say what they are, and have a reference of
    their own. Its fast part is the next test."""
    arguments = ["evaluate-generator", *data, "--device", "cpu"]
    assert main([*arguments, "--out", str(tmp_path / "full")]) == 0
    assert not compiled_shapes
    assert main([*arguments, "--out", str(tmp_path / "half"), "--precision", "bf16", "--compile"]) == 0
    assert {shape for _, shape in compiled_shapes} == {(32, 3, 48, 48)}
    assert len(compiled_shapes) == 8, "Inception and the classifier, two batches each of samples and reference"
    full, half = result_of(tmp_path / "full"), result_of(tmp_path / "half")
    assert (half["precision"], half["compiled"]) == ("bf16", True)
    assert not {"precision", "compiled"} & set(full)
    assert half["network"]["name"] == full["network"]["name"] + "-bf16"
    assert half["network"]["sha256"] == full["network"]["sha256"]
    assert half["metrics"]["fid"] != full["metrics"]["fid"]
    assert half["metrics"]["fid"] == pytest.approx(full["metrics"]["fid"], rel=0.05)
    assert half["metrics"]["agreement"] == pytest.approx(full["metrics"]["agreement"], abs=0.1)
    assert len(list((tmp_path / "cache" / "statistics").glob("*.npz"))) == 2


def test_the_last_batch_is_filled_up_and_results_are_float32(
    compiled_shapes: list[tuple[str, tuple[int, ...]]],
) -> None:
    torch.manual_seed(0)
    layer = nn.Sequential(nn.Conv2d(3, 5, 3), nn.Flatten())
    images = torch.rand(7, 3, 8, 8)

    def network(batch: Tensor) -> dict[str, Tensor]:
        return {"pool": layer(batch)}

    plain = network(images)["pool"].detach()
    compiled = faster(network, CPU, batch=4)
    found = torch.cat([compiled(part)["pool"] for part in images.split(4)])
    assert [shape[0] for _, shape in compiled_shapes] == [4, 4]
    assert not found.requires_grad
    assert torch.allclose(found, plain, atol=1e-6)
    half = faster(network, CPU, "bf16")(images)["pool"]
    assert half.dtype == torch.float32
    assert 0 < (half - plain).abs().max() < 0.02


def test_statistics_of_parts_are_those_of_all() -> None:
    random = np.random.RandomState(0)
    rows = random.standard_normal((300, 5)) @ random.standard_normal((5, 5)) + np.arange(5) * 100
    rows[200:] += 7
    whole, merged = RunningStatistics(), RunningStatistics()
    for part in np.split(rows, [3, 90, 200]):
        whole.add(part)
        one = RunningStatistics()
        one.add(part)
        merged.merge(one)
        merged.merge(RunningStatistics())
    a, b = merged.statistics(), whole.statistics()
    assert a.count == b.count == 300
    assert np.allclose(a.mean, b.mean, rtol=1e-12)
    assert np.allclose(a.covariance, b.covariance, rtol=1e-10)
    other = RunningStatistics()
    other.add(rows[:, :3])
    with pytest.raises(DataError, match="do not add up"):
        merged.merge(other)


class Colours:
    """A network whose features are the mean colours of a picture and of its quarters; it counts pictures."""

    name, spaces, checksum = "colours", ("pool", "spatial"), "0" * 64

    def __init__(self) -> None:
        self.seen = 0

    def __call__(self, images: Tensor) -> dict[str, Tensor]:
        self.seen += len(images)
        quarters = torch.nn.functional.adaptive_avg_pool2d(images, 2).flatten(1)
        return {"pool": images.mean((2, 3)), "spatial": quarters}


def by(count: int, work: Callable[[Thread], Any]) -> list[Any]:
    """What ``work`` returns in each of several processes."""
    barrier, values = threading.Barrier(count), {}
    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(work, [Thread(rank, count, barrier, values) for rank in range(count)]))


@pytest.mark.parametrize("count", [2, 3])
def test_each_process_has_a_share(count: int, data: list[str], tmp_path: Path) -> None:
    """Of samples, of a data set and of a reference file; with three, one has no batch at all."""
    pixels, source = photographs(40, 48), open_images(data[1])
    generated = Samples(pixels, np.arange(40) % 2, "made")
    np.savez(tmp_path / "reference.npz", arr_0=photographs(40, 48, shift=2))
    expected = {}
    for kind in ("data set", "file"):
        network = Colours()
        reference = (
            reference_of(source, 48, network, CPU, cache=tmp_path / "one")
            if kind == "data set"
            else adm_reference(tmp_path / "reference.npz", network, CPU)
        )
        expected[kind] = measure_generated(generated, reference, network, CPU)

    def work(process: Thread) -> dict[str, Any]:
        found: dict[str, Any] = {}
        network = Colours()
        reference = reference_of(source, 48, network, CPU, cache=tmp_path / "several", processes=process)
        found["data set"] = measure_generated(generated, reference, network, CPU, processes=process)
        reference = adm_reference(tmp_path / "reference.npz", network, CPU, process)
        found["file"] = measure_generated(generated, reference, network, CPU, processes=process)
        return found | {"seen": network.seen}

    first, *others = by(count, work)
    for kind, metrics in expected.items():
        assert first[kind] == pytest.approx(metrics, rel=1e-6, abs=1e-9)
        assert all(other[kind] == {} for other in others)
    seen = [found["seen"] for found in (first, *others)]
    assert sum(seen) == 37 + 3 * 40
    assert sorted(seen)[-1] < sum(seen)
    assert len(list((tmp_path / "several").iterdir())) == 1


def test_classes_are_shared_among_processes(data: list[str]) -> None:
    """Their places and the agreement are those of one process; each sees pictures of its classes alone."""
    source = open_images(data[1])
    generated = Samples(photographs(40, 48), np.arange(40) % 2, "made")
    torch.manual_seed(0)
    weights = torch.randn(3 * 16, 1000)

    def agreement(process: Any = None) -> tuple[dict[str, float], int]:
        seen: list[int] = []

        def logits(images: Tensor) -> Tensor:
            seen.append(len(images))
            return torch.nn.functional.adaptive_avg_pool2d(images, 4).flatten(1) @ weights

        more = {} if process is None else {"processes": process}
        return class_agreement(source, 48, logits, CPU, **more)(generated), sum(seen)

    one, count = agreement()
    assert set(one) == {"agreement", "agreement_reference", "agreement_chance"}
    assert count == 37 + 40
    (first, ours), (second, theirs) = by(2, agreement)
    assert first == pytest.approx(one)
    assert second == {}
    assert ours + theirs == count
    assert min(ours, theirs) > 18
