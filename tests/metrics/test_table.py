"""The one list of metrics: an entry is all that a new metric takes, and few images leave some out."""

from __future__ import annotations

import ast
from pathlib import Path

import numpy as np
import pytest

from flowmo.cli.main import main
from flowmo.errors import ConfigError
from flowmo.evaluation.results import read_result
from flowmo.metrics import table
from flowmo.metrics.networks import Networks
from flowmo.metrics.statistics import Statistics
from flowmo.metrics.table import (
    GENERATED,
    METRICS,
    Measurements,
    Metric,
    allowed,
    check_metrics,
    columns,
    compute,
    default_families,
    families,
    in_one_line,
    spaces,
)

PICTURES = Path(table.__file__).parents[1] / "samples"


def test_names_are_unique_and_formats_work() -> None:
    assert len(columns()) == len({column.name for column in columns().values()}) == len(METRICS) + 6
    for column in columns().values():
        assert column.text(0.5)
        assert column.text(None, "n/a") == "n/a"
    assert columns()["kid"].heading == "KID x 1000"
    assert columns()["kid"].text(0.0125) == "12.50"
    assert table.column("lpips").label == "LPIPS Alex"  # as figures and training logs call it
    assert columns()["rfid"].axis == "rFID, lower is better"


def test_what_other_lists_follow_from_the_table() -> None:
    assert table.each_image() == ["psnr", "ssim", "lpips_alex", "lpips_vgg"]
    assert table.of_all_images()[:3] == ["rfid", "kid", "sfid"]
    assert table.with_companions(["psnr", "rfid", "fd_efflite0"])[3:] == ["kid", "kd_efflite0"]
    assert {name for name, shown in columns().items() if not shown.plotted} == {
        "bits_per_pixel", "kd_efflite0", "beats_thumbnail", "beats_transform",
    }  # fmt: skip


def test_labels_stand_in_the_table_alone() -> None:
    """No other file of the package or of the tools says a metric's label in a string of its own."""
    labels = {metric.label for metric in METRICS if " " in metric.label or metric.label.startswith(("rFID", "FD-"))}
    root = Path(table.__file__).parents[1]
    files = [*root.rglob("*.py"), *(root.parents[1] / "tools").glob("*.py")]
    again = [
        f"{path.name}: {node.value}"
        for path in files
        if path != Path(table.__file__)
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Constant) and node.value in labels
    ]
    assert again == []


def test_families_come_once_in_order_with_kid_beside_rfid() -> None:
    assert check_metrics(["rfid", "psnr", "rfid"], 10) == ("psnr", "rfid", "kid")
    assert check_metrics(["rfid"], 10_000) == ("rfid",)
    assert "kd_efflite0" not in default_families()
    assert [metric.name for metric in families()["precision_recall"]] == ["precision", "recall"]
    with pytest.raises(ConfigError, match="no metric 'fid'; choose from psnr"):
        check_metrics(["fid"], 10)


def test_only_the_features_that_are_needed() -> None:
    assert spaces(["psnr", "code"]) == []
    assert spaces(["kid", "sfid", "rfid", "fd_efflite0"]) == ["efflite0.pool", "inception.pool", "inception.spatial"]


def test_numbers_of_columns_by_hand() -> None:
    pool = np.random.RandomState(0).randn(8, 3).astype(np.float32)
    measured = Measurements(
        {"ssim": np.array([0.25, 0.75], np.float32), "inception.pool": pool + 1}, {"inception.pool": pool}
    )
    numbers, left_out = compute(["ssim", "rfid", "kid", "precision_recall"], measured)
    assert list(numbers) == ["ssim", "rfid", "kid", "kid_error", "precision", "recall"]
    assert numbers["ssim"] == 0.5
    assert numbers["rfid"] == pytest.approx(3, rel=1e-5)  # the same covariance, means one apart in three dimensions
    assert not left_out


def test_generated_images_have_the_metrics_that_their_reference_allows() -> None:
    pool = np.random.RandomState(0).randn(8, 3).astype(np.float32)
    known = {"inception.pool": Statistics.of(pool)}
    for originals, expected in (({}, ["fid"]), ({"inception.pool": pool}, ["fid", "precision_recall", "kid"])):
        measured = Measurements({"inception.pool": pool + 1}, originals, statistics=known)
        assert allowed(measured, GENERATED) == expected
        assert compute(["fid"], measured, GENERATED)[0] == {"fid": pytest.approx(3, rel=1e-5)}


def test_the_use_of_the_code_is_that_of_a_result() -> None:
    code = {"bit_entropy": 0.5, "bits_never_flip": 0.0, "groups": [{"used": 0.25}, {"used": 0.75}]}
    assert compute(["code"], Measurements({}, {}, code=code))[0] == {"bit_entropy": 0.5, "codes_used": 0.5}
    assert compute(["code"], Measurements({}, {})) == ({}, {})  # a continuous latent, or before there is a result


def test_too_few_images_leave_a_metric_out() -> None:
    pool = np.zeros((3, 2), np.float32)
    numbers, left_out = compute(["kid"], Measurements({"inception.pool": pool}, {"inception.pool": pool}))
    assert numbers == {}
    assert "4 images" in left_out["kid"]


def test_psnr_pools_the_errors_of_a_group() -> None:
    found = {"squared_error": np.array([1.0, 100.0]), "psnr": np.array([48.0, 28.0])}
    each = compute(["psnr"], Measurements(found, {}))[0]
    alone = compute(["psnr"], Measurements(found, {}, np.array([0, 1])))[0]
    pooled = compute(["psnr"], Measurements(found, {}, np.array([0, 0])))[0]
    assert each == {"psnr": 38.0}
    assert alone["psnr"] == pytest.approx(20 * np.log10(255) - 10)
    assert pooled == pytest.approx({"psnr": 20 * np.log10(255) - 10 * np.log10(50.5), "psnr_each": 38.0})


def test_a_new_metric_is_one_entry(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As CONTRIBUTING tells it: after the entry the command takes it, measures it, prints it and says what it is."""
    worst = Metric(
        "psnr_worst", "worst PSNR", ".1f", "higher", "psnr",
        lambda m: {"psnr_worst": float(m.columns["psnr"].min())}, "dB of the farthest picture",
    )  # fmt: skip
    monkeypatch.setattr(table, "METRICS", (*METRICS, worst))
    arguments = ["evaluate", "flowmo-mini", str(PICTURES), "--metrics", "psnr", "psnr_worst", "--limit", "3"]
    assert main([*arguments, "--steps", "1", "--guidance", "1", "--out", str(tmp_path)]) == 0
    result = read_result(tmp_path / "flowmo-mini-standard.json")
    assert result.content["metrics"]["psnr_worst"] < result.content["metrics"]["psnr"]
    assert result.content["conventions"]["psnr_worst"] == "dB of the farthest picture"
    heading, line, *_ = capsys.readouterr().out.splitlines()
    assert "worst PSNR" in heading
    assert f"{result.content['metrics']['psnr_worst']:.1f}" in line


def test_numbers_in_a_line_have_the_headings_of_tables() -> None:
    assert in_one_line({"kid": 0.04759, "psnr": 22.654, "unheard_of": 1.0}) == "PSNR dB 22.65, KID x 1000 47.59"


def test_metrics_that_lack_one_network_are_named_in_one_line() -> None:
    networks = Networks(
        ("psnr",), left_out={"rfid": "no Inception", "fd_efflite0": "no classifier", "kid": "no Inception"}
    )
    assert networks.notes() == [
        "note: rfid, kid are left out: no Inception",
        "note: fd_efflite0 is left out: no classifier",
    ]
