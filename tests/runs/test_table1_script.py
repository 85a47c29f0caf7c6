"""runs/table1.sh finds the published files that are there, compares them and leaves the others out."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from flowmo import samples
from flowmo.comparison.peers.maskbit import Decoder, Encoder
from flowmo.errors import WeightsError
from flowmo.evaluation.results import read_result
from flowmo.perceptual import load_lpips

ROOT = Path(__file__).parents[2]


def test_one_small_tokenizer_gets_its_row(tmp_path: Path) -> None:
    try:
        load_lpips("alex")
    except WeightsError as error:
        pytest.skip(str(error))
    torch.manual_seed(0)
    parts = torch.nn.ModuleDict({"encoder": Encoder(32, [32, 64], 1, 1, 6), "decoder": Decoder(6, [64, 32], 1, 1, 64)})
    folder = tmp_path / "weights" / "maskbit-10"
    folder.mkdir(parents=True)
    torch.save(parts.state_dict(), folder / "maskbit_tokenizer_10bit.bin")
    environment = os.environ | {
        "FLOWMO": f"{sys.executable} -m flowmo",
        "PYTHONPATH": str(ROOT / "src"),
        "SIZE": "64",
        "MODELS": "",
        "OMP_NUM_THREADS": "1",
    }
    data, weights = samples.paths()[0].parent, tmp_path / "weights"
    command = [ROOT / "runs" / "table1.sh", data, tmp_path / "out", weights, "--limit", "2", "--metrics"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    assert "left out: llamagen-ds16" in done.stderr
    results = list((tmp_path / "out").glob("*.json"))
    assert len(results) == 1
    assert read_result(results[0]).data.count == 2
    text = json.dumps(read_result(results[0]).content)
    assert "MaskBit, 10 bits" in text
