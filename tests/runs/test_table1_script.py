"""runs/table1.sh finds the published files that are there, measures them and leaves the others out."""

from __future__ import annotations

import subprocess
from pathlib import Path

import torch

import warm_python
from flowmo import samples
from flowmo.comparison.peers.maskbit import Decoder, Encoder
from flowmo.evaluation.results import read_result

ROOT = Path(__file__).parents[2]


def test_one_small_tokenizer_gets_its_row(tmp_path: Path) -> None:
    torch.manual_seed(0)
    parts = torch.nn.ModuleDict({"encoder": Encoder(32, [32, 64], 1, 1, 6), "decoder": Decoder(6, [64, 32], 1, 1, 64)})
    folder = tmp_path / "weights" / "maskbit-10"
    folder.mkdir(parents=True)
    torch.save(parts.state_dict(), folder / "maskbit_tokenizer_10bit.bin")
    environment = warm_python.environment() | {"FLOWMO": f"{warm_python.python()} -m flowmo", "SIZE": "64"}
    data, weights = samples.paths()[0].parent, tmp_path / "weights"
    command = [ROOT / "runs" / "table1.sh", data, tmp_path / "out", weights, "--count", "3", "--metrics"]
    command += ["psnr", "ssim", "code"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    assert "left out: llamagen-ds16" in done.stderr
    assert "left out: there is no" in done.stderr
    assert [path.name for path in (tmp_path / "out").glob("*.json")] == ["maskbit-10-published.json"]
    result = read_result(tmp_path / "out" / "maskbit-10-published.json")
    assert (result.protocol, result.data.count, result.data.image_size) == ("published", 3, (64, 64))
    assert result.models[0].sampler is None
    assert result.content["rate"]["payload_bytes"] == 32 * 32 * 6 / 8
    assert {"psnr", "ssim"} <= set(result.content["metrics"])
