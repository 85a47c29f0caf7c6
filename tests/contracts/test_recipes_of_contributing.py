"""The recipes of CONTRIBUTING.md: few files each, and two of them followed to the letter in a copy of the package."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

import warm_python

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "src" / "flowmo"
MOST = {"a quantizer": 3, "a training stage": 3, "a metric": 2, "a data source": 2, "a peer, another tokenizer": 2}
RECIPES = {
    name: re.findall(r"`([^`]+)`", files)
    for name, files in re.findall(r"^\| (an? [^|]+?) \| (`[^|]+`) \|$", (ROOT / "CONTRIBUTING.md").read_text(), re.M)
}
QUANTIZER = '''
"""Signs scaled by a weight that trains."""

import torch

from .base import Quantized, Quantizer, no_losses, straight_through
from .lfq import code_from_tokens, tokens_from_code


class Scaled(Quantizer):
    has_bits = True

    def __init__(self, config):
        super().__init__()
        self.bits_per_group = config.bits_per_group
        self.latent_dim, self.levels = config.bits_per_token, (2,) * config.bits_per_group
        self.scale = torch.nn.Parameter(torch.full((), config.quantizer.first_scale))

    def forward(self, latent, average=None):
        signs = torch.where(latent > 0, 1.0, -1.0)
        code = self.scale * straight_through(latent, signs)
        return Quantized(code, tokens_from_code(signs, self.bits_per_group), no_losses(latent))

    def decode(self, tokens):
        return self.scale.detach() * code_from_tokens(tokens, self.bits_per_group)
'''
USE = """
import json, sys
from dataclasses import replace
from pathlib import Path
import torch
import flowmo
from flowmo.cli.main import main
from flowmo.config import QuantizerConfig
from flowmo.presets import tiny
from flowmo.stages import ModeMatching
from flowmo.training import TrainConfig

out = Path(sys.argv[1])
assert Path(flowmo.__file__).is_relative_to(out), flowmo.__file__
photos = str(Path(flowmo.__file__).parent / "samples")
options = ["--limit", "2", "--steps", "1", "--guidance", "1", "--out", str(out / "results")]
assert main(["evaluate", "flowmo-mini-64", photos, "--metrics", "psnr", "farthest", *options]) == 0

torch.manual_seed(0)
config = replace(tiny(), quantizer=QuantizerConfig(kind="scaled", first_scale=0.5))
model, other = flowmo.FlowMo(config), flowmo.FlowMo(config)
other.load_state_dict(model.state_dict())
other.quantizer.scale.data.fill_(2.0)
stage = ModeMatching(model, TrainConfig(losses=replace(TrainConfig().losses, perceptual=0)))
size = config.image_size

class Batch:
    images = torch.rand(4, 3, size, size) * 2 - 1

before = model.quantizer.scale.item()
optimizer = torch.optim.Adam(model.parameters(), 0.01)
for step in range(2):  # the decoder's readout is zero at first, and lets no gradient through to the code
    loss = stage(Batch, torch.Generator().manual_seed(step), 0).total
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
tokens = model.tokenize(Batch.images)
facts = {
    "loss": loss.item(), "before": before, "after": model.quantizer.scale.item(),
    "shape": list(tokens.indices.shape), "decoded": list(model.detokenize(tokens).shape),
    "fingerprints": [flowmo.FlowMo(config).fingerprint(), other.fingerprint(), model.fingerprint()],
}
(out / "facts.json").write_text(json.dumps(facts))
"""


def insert(path: Path, before: str, text: str) -> None:
    """Write ``text`` before the one place where ``before`` stands."""
    source = path.read_text()
    assert source.count(before) == 1, f"{path.name} has {source.count(before)} times {before!r}"
    path.write_text(source.replace(before, text + before))


@pytest.mark.parametrize("name", MOST)
def test_a_recipe_names_few_files_and_they_exist(name: str) -> None:
    files = RECIPES[name]
    assert 0 < len(files) <= MOST[name]
    assert all((PACKAGE / file).is_file() for file in files if "NAME" not in file)
    assert all((PACKAGE / file).parent.is_dir() for file in files)


def test_a_metric_and_a_quantizer_take_the_files_that_are_named(tmp_path: Path) -> None:
    """The copy is changed in no other file; then evaluate prints the metric, and two steps train the quantizer."""
    copy = tmp_path / "flowmo"
    shutil.copytree(PACKAGE, copy, ignore=shutil.ignore_patterns("__pycache__"))
    metric, quantizer = RECIPES["a metric"], [file.replace("NAME", "scaled") for file in RECIPES["a quantizer"]]
    assert metric == ["metrics/pixels.py", "metrics/table.py"]
    assert quantizer == ["quantize/scaled.py", "quantize/__init__.py", "config.py"]

    formula = "def farthest(a: Tensor, b: Tensor) -> Tensor:\n    return (a.float() - b.float()).abs().amax((1, 2, 3))"
    insert(copy / metric[0], "def psnr_uint8(", f"{formula}\n\n\n")
    entry = (
        'Metric("farthest", "farthest pixel", ".1f", "lower", "farthest", _mean_of("farthest"), "8-bit levels",\n'
        "    pair=farthest),\n    "
    )
    insert(copy / metric[1], 'Metric("codes_used"', entry)
    insert(copy / metric[1], "pooled_psnr, psnr_uint8", "farthest, ")
    (copy / quantizer[0]).write_text(QUANTIZER.lstrip())
    insert(copy / quantizer[1], '"bsq": BSQ', '"scaled": Scaled, ')
    insert(copy / quantizer[1], "\n__all__", "from .scaled import Scaled\n")
    insert(copy / quantizer[2], '"continuous"] = "lfq"', '"scaled", ')
    insert(copy / quantizer[2], "    tanh_bound: bool", "    first_scale: float = 1.0\n")

    environment = warm_python.environment() | {"PYTHONPATH": str(tmp_path)}
    command = [warm_python.python(), "-c", USE, str(tmp_path)]
    ended = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr

    heading, line, *_ = ended.stdout.splitlines()
    result = json.loads((tmp_path / "results" / "flowmo-mini-64-standard.json").read_text())["content"]
    assert "farthest pixel" in heading
    assert f"{result['metrics']['farthest']:.1f}" in line
    assert 0 < result["metrics"]["farthest"] <= 255
    assert result["conventions"]["farthest"] == "8-bit levels"
    table = (tmp_path / "results" / "flowmo-mini-64-standard.csv").read_text().splitlines()
    assert "farthest" in table[0].split(",")

    facts = json.loads((tmp_path / "facts.json").read_text())
    assert facts["before"] == 0.5
    assert facts["after"] != 0.5  # the steps moved it
    assert facts["shape"][0] == facts["decoded"][0] == 4
    assert len(set(facts["fingerprints"])) == 3  # also of models that differ in the quantizer's weight alone
