"""What ``flowmo train`` says before any training: about the data, the device and the weights to start from."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from flowmo import samples
from flowmo.cli.main import main
from flowmo.presets import flowmo_mini_64
from flowmo.tokenizer import FlowMo
from flowmo.weights import save_model

SHORT = ["--set", "images=4", "batch_size=2", "losses.perceptual=0"]


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    (tmp_path / "pictures").mkdir()
    for path in samples.paths()[:3]:
        shutil.copy(path, tmp_path / "pictures")
    return tmp_path / "pictures"


@pytest.fixture
def fails(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    def run(data: Path, *more: str) -> str:
        assert main(["train", str(data), str(tmp_path / "run"), "--preset", "tiny", *more, *SHORT]) == 2
        return capsys.readouterr().err

    return run


@pytest.mark.parametrize("out", [".", "run"])
def test_a_run_does_not_write_its_pictures_among_those_it_trains_on(
    pictures: Path, out: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", str(pictures), str(pictures / out), "--preset", "tiny", *SHORT]) == 2
    assert "give a folder outside" in capsys.readouterr().err
    assert len(list(pictures.iterdir())) == 3


def test_a_folder_that_cannot_be_made_is_told_before_the_speed_is_measured(
    pictures: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (pictures.parent / "file").write_text("here")
    run = ["train", str(pictures), str(pictures.parent / "file" / "run"), "--preset", "tiny", "--time-limit", "1m"]
    assert main([*run, "--set", "losses.perceptual=0"]) == 2
    said = capsys.readouterr().err
    assert f"{pictures.parent / 'file'} is a file, so no results can go into it; give another folder" in said
    assert "measuring the speed" not in said


def test_a_setting_of_the_model_is_not_one_of_the_training(pictures: Path, fails: Callable[..., str]) -> None:
    said = fails(pictures, "--set", "encoder.width=12", "--dry-run")
    assert "encoder.width is a setting of the model; flowmo train takes it as --config encoder.width=VALUE" in said


def test_a_device_that_is_not_there(pictures: Path, fails: Callable[..., str]) -> None:
    assert "--device nowhere cannot be used here" in fails(pictures, "--device", "nowhere")


def test_the_true_reason_why_data_cannot_be_read(
    tmp_path: Path, fails: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Data with splits whose training part is damaged, or that pyarrow is missing for."""
    for name in ("train-0.parquet", "validation-0.parquet"):
        (tmp_path / name).write_bytes(b"PAR1 and no more")
    pytest.importorskip("pyarrow")
    assert "train-0.parquet: not a Parquet file" in fails(tmp_path)
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    assert "pip install 'flowmo[data]'" in fails(tmp_path)


def test_a_broken_image_among_those_to_validate_on(pictures: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (pictures / "a.jpg").write_text("not a picture")
    run = ["train", str(pictures), str(pictures.parent / "run"), "--preset", "tiny", "--device", "cpu", *SHORT]
    assert main(run) == 0
    assert "left out of validation" in capsys.readouterr().err
    assert (pictures.parent / "run" / "model.safetensors").is_file()


def test_a_dry_run_prints_the_model_that_would_be_trained(
    pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save_model(FlowMo(flowmo_mini_64()), tmp_path / "m.safetensors")
    start = ["--preset", "tiny", "--init", str(tmp_path / "m.safetensors"), "--dry-run"]
    assert main(["train", str(pictures), str(tmp_path / "run"), *start]) == 0
    assert '"image_size": 64' in capsys.readouterr().out


@pytest.mark.parametrize(
    "wrong", [("--preset", "nothing"), ("--config", "nothing=1"), ("--config", "nothing"), ("--set", "nothing=1")]
)
def test_a_wrong_setting_is_told_before_anything_else(
    wrong: tuple[str, str], pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", str(pictures), str(tmp_path / "run"), *wrong]) == 2
    said = capsys.readouterr().err.strip()
    assert "training preset" not in said
    assert "nothing" in said.splitlines()[-1]
