"""flowmo compare as a user runs it: codecs and models on the packaged pictures, kills, and wrong use."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command_support import CAT, PAYLOAD, Command
from PIL import Image

import warm_python
from flowmo.comparison.published import TABLE_1
from flowmo.evaluation.results import read_result
from flowmo.weights.load import PACKAGED

FOLDER = CAT.parent
QUICK = ("--codecs", "jpeg", "webp", "--bytes", 70, 300, "--limit", 4, "--metrics")


pytestmark = pytest.mark.usefixtures("lpips")


def rows_of(out: str) -> dict[tuple[str, str | None, int | None], Any]:
    content = read_result(Path(out, "comparison.json")).content
    return {(row["name"], row["counted"], row["target"]): row for row in content["rows"]}


def test_a_comparison(flowmo: Command, weights: Path) -> None:
    result = flowmo("compare", FOLDER, "--models", weights, *QUICK, "--out", "o", model=False)
    assert result.code == 0, result.err
    rows = rows_of("o")
    ours = weights.name
    assert set(rows) == {
        (ours, None, None),
        *(("thumbnail", None, target) for target in (70, 300)),
        *((name, way, t) for name in ("jpeg", "webp") for way in ("file", "payload") for t in (70, 300)),
    }
    assert (rows[ours, None, None]["payload_bytes"], rows[ours, None, None]["file_bytes"]) == (PAYLOAD, PAYLOAD + 24)
    assert rows["jpeg", "file", 70]["reached"] == 0
    assert rows["jpeg", "file", 70]["metrics"] == {}
    for (name, way, target), row in rows.items():
        if way and row["metrics"]:
            assert row[f"{way}_bytes"] <= target, name
            assert row["payload_bytes"] < row["file_bytes"]
            assert set(row["metrics"]) == {"psnr", "ssim", "lpips_alex", "beats_thumbnail"}
    assert rows["webp", "file", 300]["metrics"]["lpips_alex"] < rows["webp", "file", 70]["metrics"]["lpips_alex"]

    whole = read_result(Path("o/comparison.json"))
    assert (whole.kind, whole.protocol, whole.data.count, whole.data.image_size) == (
        "comparison",
        "standard",
        4,
        (32, 32),
    )
    assert whole.models[0].name == ours
    assert len(whole.content["quoted"]["rows"]) == len(TABLE_1)
    assert str(Path.cwd()) not in Path("o/comparison.json").read_text()
    for text in (result.out, Path("o/table.md").read_text()):
        assert all(name in text for name in (ours, "webp", "thumbnail", "0 of 4", "FlowMo-Hi", "quoted"))
    plots = ["rate-psnr", "rate-ssim", "rate-lpips-alex"]  # Figure 1 needs rFID
    assert sorted(path.stem for path in Path("o").glob("*.png")) == sorted(plots)
    for name in plots:
        with Image.open(f"o/{name}.png") as image:
            pixels = np.asarray(image.convert("RGB"))
        assert min(pixels.shape[:2]) > 500
        assert pixels.std() > 15

    again = flowmo("compare", FOLDER, "--models", weights, *QUICK, "--out", "o", model=False)
    assert again.code == 2
    assert "--force" in again.err


def test_metrics_of_distributions_and_json(flowmo: Command) -> None:
    """The packaged model by default, and the bytes that it takes."""
    quick = ("--codecs", "webp", "--counted", "payload", "--limit", 5, "--metrics", "lpips_vgg", "fd_efflite0")
    result = flowmo("compare", FOLDER, *quick, "--controls", "--out", "o", "--json", model=False)
    assert result.code == 0, result.err
    rows = result.json["rows"]
    controls = [row for row in rows if row["group"] == "control"]
    assert [row["name"].partition(", ")[2] for row in controls] == ["another picture's code"]  # one step is its own
    rows = [row for row in rows if row["group"] != "control"]
    assert controls[0]["metrics"]["psnr"] < rows[0]["metrics"]["psnr"] - 3
    assert [(row["name"], row["target"]) for row in rows] == [
        (PACKAGED, None),
        ("thumbnail", 1792),
        ("webp", 1792),
    ]
    wanted = {"psnr", "ssim", "lpips_alex", "lpips_vgg", "fd_efflite0", "kd_efflite0", "kd_efflite0_error"}
    if "left out" not in result.err:
        assert all(set(row["metrics"]) - {"beats_thumbnail"} == wanted for row in rows)
        assert rows[0]["metrics"]["beats_thumbnail"] == 1
    assert rows[0]["metrics"]["lpips_alex"] < rows[1]["metrics"]["lpips_alex"]


def test_a_killed_comparison_goes_on_where_it_was(flowmo: Command, weights: Path) -> None:
    """Real processes and a real SIGKILL; the end is that of a run that was left alone."""
    words = ["compare", FOLDER, "--models", weights, "--codecs", "webp", "--bytes", 70, 150, "--metrics", "--limit", 8]
    command = [warm_python.python(), "-m", "flowmo", *map(str, words), "--out", "o"]
    environment = warm_python.environment()
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    journal, deadline = Path("o/progress.jsonl"), time.monotonic() + 120
    while not (journal.exists() and journal.read_bytes().count(b"\n") >= 3) and time.monotonic() < deadline:
        assert process.poll() is None, "it ended before it could be killed"
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert not Path("o/comparison.json").exists()
    before = journal.read_bytes().count(b"\n")
    assert before >= 3

    assert flowmo(*words, "--out", "o", model=False).code == 0
    coded = [json.loads(line)[0] for line in journal.read_text().splitlines()]
    coded = [json.dumps(key) for key in coded if key[0] == "coded"]
    assert len(coded) == len(set(coded)) == 8
    assert flowmo(*words, "--out", "alone", model=False).code == 0
    assert rows_of("o") == rows_of("alone")


def test_a_broken_picture_is_named_and_the_others_compared(flowmo: Command, weights: Path) -> None:
    Path("p").mkdir()
    for i, path in enumerate(sorted(FOLDER.glob("*.jpg"))[:3]):
        Path(f"p/{i}.jpg").write_bytes(path.read_bytes()[: 200 if i == 1 else None])
    result = flowmo("compare", "p", "--models", weights, "--codecs", "jpeg", "--metrics", "--out", "o", model=False)
    assert result.code == 1
    assert "1.jpg" in result.err
    whole = read_result(Path("o/comparison.json"))
    assert whole.data.count == 2
    assert len(whole.data.skipped) == 1


def test_tokenizers_of_others(flowmo: Command) -> None:
    Path("theirs.py").write_text(
        "from torch.nn.functional import avg_pool2d, interpolate\n"
        "def half(x):\n    return interpolate(avg_pool2d(x, 2), scale_factor=2.0)\n"
    )
    words = ("compare", FOLDER, "--models", "--peers", "half=theirs:half,bits_per_image=800", "--metrics", "--limit", 2)
    refused = flowmo(*words, "--size", 32, "--out", "o", model=False)
    assert refused.code == 2
    assert "--trust" in refused.err
    result = flowmo(*words, "--size", "32x48", "--trust", "--out", "o", model=False)
    assert result.code == 0, result.err
    rows = rows_of("o")
    assert rows["half", None, None]["payload_bytes"] == 100
    assert rows["half", None, None]["file_bytes"] is None
    assert "declared" in rows["half", None, None]["counting"]


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (("--codecs", "png"), "jpeg, webp, avif, jpeg2000, jpegxl"),
        (("--bytes", 2), "2 bytes are too few"),
        (("--bytes", 100_000), "too many"),
        (("--bytes", 0), "at least 1"),
        (("--models", "no-such-model"), "no-such-model"),
        (("--models",), "--size"),
        (("--models", "--size", 64, "--codecs", "jpeg"), "--bytes"),
        (("--size", 33), "33"),
        (("--size", 16), "LPIPS"),
        (("--peers", "nonsense"), "NAME=torchscript"),
        (("--peers", "a=torchscript:a.pt,b.pt"), "--trust"),
        (("--metrics", "fid"), "fid"),
        (("--lpips-alex", "nowhere.safetensors"), "nowhere"),
        (("--split", "train"), "train"),
        (("--counted", "some"), "payload"),
        (("--device", "cuda:99"), "cpu"),
    ],
)
def test_wrong_use_is_explained(flowmo: Command, weights: Path, flags: tuple[Any, ...], words: str) -> None:
    models = () if "--models" in flags else ("--models", weights)
    result = flowmo("compare", FOLDER, *models, *flags, "--limit", 1, "--out", "o", model=False)
    assert result.code == 2
    assert words in result.err
    assert not Path("o/comparison.json").exists()


def test_models_of_different_sizes_need_a_size(flowmo: Command, weights: Path) -> None:
    result = flowmo("compare", FOLDER, "--models", weights, "flowmo-mini", "--out", "o", model=False)
    assert result.code == 2
    assert "32 to 256 pixels" in result.err
    assert not Path("o").exists()


def test_nothing_to_compare(flowmo: Command) -> None:
    assert "nowhere" in flowmo("compare", "nowhere", "--out", "o", model=False).err
    Path("empty").mkdir()
    assert flowmo("compare", "empty", "--out", "o", model=False).code == 2
