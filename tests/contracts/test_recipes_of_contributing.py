"""The recipes of CONTRIBUTING.md: few files each, and three of them followed to the letter in copies of the package."""

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
assert main(["evaluate", "flowmo-mini", photos, "--metrics", "psnr", "farthest", *options]) == 0

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

STAGE = '''
"""The flow term of Stage 1A alone."""

from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F

from ..flow import interpolate, velocity_target
from .base import LossParts, Stage, StageConfig


@dataclass(frozen=True)
class PlainFlowConfig(StageConfig):
    stage: Literal["plain_flow"] = "plain_flow"
    least_noise: float = 0.25

    @property
    def encoder_images(self):
        return None


class PlainFlowLoss(NamedTuple):
    total: torch.Tensor
    plain: torch.Tensor


class PlainFlow(Stage):
    def __init__(self, model, config, parts=None):
        super().__init__()
        self.model, self.config, self.parts = model, config, parts or LossParts()

    def forward(self, batch, generator, images_seen):
        image, least = batch.images, self.config.least_noise
        noise = torch.randn(image.shape, generator=generator)
        t = least + (1 - least) * torch.rand(len(image), generator=generator)
        code = self.model.quantize(self.model.encode(image)).code
        velocity = self.model.velocity(interpolate(image, noise, t), code, t).float()
        loss = F.mse_loss(velocity, velocity_target(image, noise))
        return PlainFlowLoss(loss, loss)
'''
STAGE_CONFIG = '''
@dataclass(frozen=True)
class PlainFlowTrainConfig(ImageRunConfig, PlainFlowConfig):
    """The flow term alone, ``flowmo train --stage plain_flow``."""

    def __post_init__(self) -> None:
        ImageRunConfig.__post_init__(self)


'''
USE_STAGE = """
import json, sys
from pathlib import Path
import pytest
import flowmo
from flowmo.cli.main import main
from flowmo.data import open_images
from flowmo.presets import tiny
from flowmo.training import TokenizerPlan, TrainOptions, train
from flowmo.training.configuration.config import PlainFlowTrainConfig

out = Path(sys.argv[1])
assert Path(flowmo.__file__).is_relative_to(out), flowmo.__file__
photos = Path(flowmo.__file__).parent / "samples"
config = PlainFlowTrainConfig(
    images=12, batch_size=4, warmup_images=0, cooldown_images=0, workers=0, precision="fp32", log_steps=1,
    learning_rate=0.01,
)
plan, source, outcomes = TokenizerPlan(config, lambda: flowmo.FlowMo(tiny())), open_images(str(photos)), []
for folder, seconds in (("halves", 0), ("halves", 600), ("whole", 600)):
    outcome = train(plan, source, out / folder, TrainOptions(seconds=seconds))
    outcomes.append([outcome.finished, outcome.images_seen])
weights = [flowmo.load(str(out / folder)).state_dict() for folder in ("halves", "whole")]
begun = plan.seeded_model().state_dict()
settings = ["images=8", "batch_size=4", "workers=0", "least_noise=0.5", "log_steps=1", "validate_every=8"]
options = ["--preset", "tiny", "--device", "cpu", "--stage", "plain_flow", "--set", *settings]
assert main(["train", str(photos), str(out / "command"), *options]) == 0
documents = "tests/contracts/test_docs.py::test_the_training_settings_are_all_listed_with_their_defaults"
assert pytest.main(["-q", "-p", "no:cacheprovider", f"--rootdir={out}", str(out / documents)]) == 0
facts = {
    "outcomes": outcomes,
    "same": all(weights[0][name].equal(w) for name, w in weights[1].items()),
    "moved": [name for name, w in begun.items() if (w - weights[1][name]).abs().max() > 0.001],
}
(out / "facts.json").write_text(json.dumps(facts))
"""


def insert(path: Path, before: str, text: str) -> None:
    """Write ``text`` before the one place where ``before`` stands."""
    source = path.read_text()
    assert source.count(before) == 1, f"{path.name} has {source.count(before)} times {before!r}"
    path.write_text(source.replace(before, text + before))


def run_with(packages: Path, program: str, out: Path) -> str:
    """Return what a program prints that is run with the copy of the package in ``packages``, and given ``out``."""
    environment = warm_python.environment() | {"PYTHONPATH": str(packages)}
    command = [warm_python.python(), "-c", program, str(out)]
    ended = subprocess.run(command, env=environment, cwd=out, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr + ended.stdout
    return ended.stdout


@pytest.mark.parametrize("name", MOST)
def test_a_recipe_names_few_files_and_they_exist(name: str) -> None:
    files = RECIPES[name]
    assert 0 < len(files) <= MOST[name]
    places = [(ROOT if file.startswith("docs/") else PACKAGE) / file for file in files]
    assert all(place.is_file() for place in places if "NAME" not in place.name)
    assert all(place.parent.is_dir() for place in places)


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

    heading, line, *_ = run_with(tmp_path, USE, tmp_path).splitlines()
    result = json.loads((tmp_path / "results" / "flowmo-mini-standard.json").read_text())["content"]
    assert "farthest pixel" in heading
    assert f"{result['metrics']['farthest']:.1f}" in line
    assert 0 < result["metrics"]["farthest"] <= 255
    assert result["conventions"]["farthest"] == "8-bit levels"
    table = (tmp_path / "results" / "flowmo-mini-standard.csv").read_text().splitlines()
    assert "farthest" in table[0].split(",")

    facts = json.loads((tmp_path / "facts.json").read_text())
    assert facts["before"] == 0.5
    assert facts["after"] != 0.5  # the steps moved it
    assert facts["shape"][0] == facts["decoded"][0] == 4
    assert len(set(facts["fingerprints"])) == 3  # also of models that differ in the quantizer's weight alone


def test_a_stage_takes_the_files_that_are_named(tmp_path: Path) -> None:
    """The copy is changed in no other file; then it trains in Python, goes on exactly, and runs by ``flowmo train``."""
    copy, docs = tmp_path / "src" / "flowmo", tmp_path / "docs"
    shutil.copytree(PACKAGE, copy, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(ROOT / "docs", docs, ignore=shutil.ignore_patterns("images"))
    (tmp_path / "tests" / "contracts").mkdir(parents=True)
    for kept in ("README.md", "tests/contracts/test_docs.py"):
        shutil.copy(ROOT / kept, tmp_path / kept)
    files = [file.replace("NAME", "plain_flow") for file in RECIPES["a training stage"]]
    assert files == ["stages/plain_flow.py", "training/configuration/config.py", "docs/TRAINING.md"]

    (copy / files[0]).write_text(STAGE.lstrip())
    insert(copy / files[1], "from .run_config import", "from ...stages.plain_flow import PlainFlow, PlainFlowConfig\n")
    insert(copy / files[1], "class StageEntry(", STAGE_CONFIG.lstrip())
    insert(copy / files[1], '    "autoencode": ', '    "plain_flow": StageEntry(PlainFlowTrainConfig, PlainFlow),\n')
    insert(tmp_path / files[2], "| `sample.weight` |", "| `least_noise` | 0.25 | lowest noise level |\n")

    run_with(copy.parent, USE_STAGE, tmp_path)
    facts = json.loads((tmp_path / "facts.json").read_text())
    assert facts["outcomes"] == [[False, 4], [True, 12], [True, 12]]
    assert facts["same"]  # the run that was ended and resumed, and the one in one call
    assert any(name.startswith("encoder.") for name in facts["moved"])
    assert any(name.startswith("decoder.") for name in facts["moved"])
    stored = json.loads((tmp_path / "command" / "config.json").read_text())["train"]
    assert (stored["stage"], stored["least_noise"]) == ("plain_flow", 0.5)
    lines = [json.loads(line) for line in (tmp_path / "command" / "log.jsonl").read_text().splitlines()]
    assert lines[0]["plain"] > 0
    assert any("psnr" in line for line in lines)  # of the validation
