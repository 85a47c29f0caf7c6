"""Models cut over processes by FSDP2: on two nodes of two, in bfloat16, compiled; Stage 1B and distillation, and what
one process makes of the same."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from run_support import BATCH, checkpoints_of, command, finish, log_of, start_script, start_several
from torch import nn

from flowmo.cli.main import main
from flowmo.errors import WeightsError
from flowmo.perceptual import load_lpips
from flowmo.presets import tiny
from flowmo.tokenizer import FlowMo
from flowmo.training import TrainConfig, TrainState, World
from flowmo.training.checkpoints.checkpoint import read_checkpoint
from flowmo.weights import load_model, save_model

SHORT = {"images": 2 * BATCH, "warmup_images": 0, "cooldown_images": 0, "validate_every": 10**6, "micro_batch": 2}
MODELS = ("per_block", "shared", "generator")


@pytest.fixture(scope="module")
def runs(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what four processes, two nodes of two, found of models that are cut, and a run of theirs."""
    folder = tmp_path_factory.mktemp("sharded")
    run = json.dumps(command(data, folder / "run", **SHORT, strategy="fsdp"))
    four = ("--standalone", "--nproc-per-node", "4")
    finish(start_script("sharded.py", str(folder / "found.pt"), run, launcher=four), timeout=400)
    return folder


@pytest.fixture(scope="module")
def found(runs: Path) -> dict[str, dict[str, Any]]:
    """By process and setting: losses of four images, gradients, and how the model was cut."""
    return torch.load(runs / "found.pt", weights_only=True)  # type: ignore[no-any-return]


def assert_same_gradients(cut: dict[str, Any], one: dict[str, Any], most: float) -> None:
    assert cut["losses"] == one["losses"]  # to the bit: every weight and input is what it is in one process
    assert len(cut["losses"]) == 4
    assert set(cut["gradients"]) == set(one["gradients"])
    for name, gradient in one["gradients"].items():
        assert float((cut["gradients"][name] - gradient).norm()) <= most * float(gradient.norm()), name


@pytest.mark.parametrize("model", MODELS)
def test_two_nodes_of_two_are_one_process(found: dict[str, dict[str, Any]], model: str) -> None:
    """Weights are cut within a node and whole on each: the gradients of four processes are those of one."""
    cut = found[f"cut fp32 {model}"]
    assert cut["mesh"] == (2, 2)
    assert_same_gradients(cut, found[f"one fp32 {model}"], 1e-5)


@pytest.mark.parametrize("model", MODELS)
def test_weights_are_gathered_in_bfloat16_as_autocast_casts_them(found: dict[str, dict[str, Any]], model: str) -> None:
    """Those of linear layers in blocks, whose products are the same to the bit; LayerNorm's weights and modulation
    tables, which autocast leaves in float32, stay so, and gradients are summed in float32."""
    cut, types = found[f"cut bf16 {model}"], found[f"cut bf16 {model}"]["types"]
    halved = {name for name, kind in types.items() if kind == "torch.bfloat16"}
    inside = {name for name in types if "blocks." in name and not name.endswith((".table", "norm.weight"))}
    assert halved == inside
    assert len(inside) > 10
    assert set(found[f"one bf16 {model}"]["types"].values()) == {"torch.float32"}
    assert {gradient.dtype for gradient in cut["gradients"].values()} == {torch.float32}
    assert_same_gradients(cut, found[f"one bf16 {model}"], 0.01)  # rounding of bfloat16 is 0.004
    assert cut["units"] == cut["blocks"] + len(types.keys() - inside - {n for n in types if "blocks." not in n})


@pytest.mark.parametrize("recompute", [False, True, 0.5])
def test_blocks_are_compiled_and_cut(found: dict[str, dict[str, Any]], recompute: bool | float) -> None:
    """One whole graph a block, called once for each image; the gradients are those of plain blocks in one process."""
    cut, one = found[f"cut compiled {recompute}"], found[f"one compiled {recompute}"]
    assert cut["calls"] == cut["blocks"] == 4
    assert one["calls"] == 4 * 4
    assert cut["mesh"] == (2, 2)
    assert_same_gradients(cut, one, 0.01)
    for name, gradient in found["one bf16 per_block"]["gradients"].items():
        assert float((cut["gradients"][name] - gradient).norm()) <= 0.05 * float(gradient.norm()), name


def test_a_run_on_two_nodes_is_that_of_one_process(data: Path, runs: Path, tmp_path: Path) -> None:
    """Norms count each shard once, and a checkpoint of replicas is read by one process."""
    assert main(command(data, tmp_path / "one", **SHORT)) == 0
    names = ("total", "gradient_norm", "parameter_norm")
    ours, theirs = ([[line[n] for n in names] for line in log_of(f).values()] for f in (runs / "run", tmp_path / "one"))
    assert len(ours) == 2
    assert np.array(ours) == pytest.approx(np.array(theirs), rel=1e-3)
    states = []
    for folder in (runs / "run", tmp_path / "one"):
        states.append(TrainState.start(FlowMo(tiny()), TrainConfig()))
        read_checkpoint(checkpoints_of(folder)[-1]).restore(states[-1], World())
    a, b = (state.tensors() for state in states)
    for name, tensor in a.items():
        assert (tensor - b[name]).abs().mean() < 1e-5 * (1 + b[name].abs().mean()), name


STAGES: dict[str, dict[str, object]] = {
    "posttrain": {"sample.num_steps": 2, "sample.rho": 2},
    "distill": {"distill.steps": [2, 1], "distill.flow_weight": 0.1},
}
WAYS = {"ddp": {}, "fsdp": {"strategy": "fsdp"}, "fsdp-recomputed": {"strategy": "fsdp", "recompute_blocks": "true"}}
DECODER = {
    "images": 2 * BATCH,
    "batch_size": BATCH,
    "micro_batch": 4,
    "learning_rate": 1e-3,
    "warmup_images": 0,
    "cooldown_images": 0,
    "ema_decay": 0.5,
    "validate_every": 10**6,
    "sample.network": "lpips_alex",
    "sample.patience": 0,
    "precision": "fp32",
    "log_steps": 1,
    "workers": 0,
}


@pytest.mark.parametrize("stage", STAGES)
def test_training_of_the_decoder_alone_by_two_processes(
    stage: str, data: Path, tmp_path: Path, lively: Callable[[nn.Module], nn.Module]
) -> None:
    """Stage 1B and distillation, whose blocks run several times before any gradient: by DDP and by FSDP2 they take the
    steps of one process, and leave the encoder as it was."""
    try:
        load_lpips("alex")
    except WeightsError as error:
        pytest.skip(str(error))
    torch.manual_seed(3)
    init = tmp_path / "init.safetensors"
    save_model(lively(FlowMo(tiny())), init)  # type: ignore[arg-type]

    def arguments(name: str, **more: object) -> list[str]:
        values = [f"{key}={value}" for key, value in (DECODER | STAGES[stage] | more).items()]
        checks = ["--validation-count", "2", "--no-rfid", "--device", "cpu"]
        return [stage, str(data), str(tmp_path / name), "--init", str(init), *checks, "--set", *values]

    commands = [arguments(name, **more) for name, more in WAYS.items()]
    finish(start_several(commands, "--standalone", "--nproc-per-node", "2"), timeout=300)
    assert main(arguments("one")) == 0
    names = ("total", "sample", "flow", "gradient_norm")
    one, weights = log_of(tmp_path / "one"), load_model(tmp_path / "one" / "model.safetensors")
    before = load_model(init)
    for way in WAYS:
        log, model = log_of(tmp_path / way), load_model(tmp_path / way / "model.safetensors")
        assert list(log) == list(one) == [1, 2]
        for step, line in one.items():
            for name in names:
                assert log[step][name] == pytest.approx(line[name], rel=1e-3), (way, step, name)
        moved = 0.0
        for name, parameter in weights.named_parameters():
            ours = model.get_parameter(name)
            if name.startswith("encoder."):
                assert torch.equal(ours, before.get_parameter(name)), name
            else:
                moved += float((parameter - before.get_parameter(name)).detach().abs().mean())
                assert (ours - parameter).abs().mean() < 1e-5 * (1 + parameter.abs().mean()), (way, name)
        assert moved > 1e-2  # far more than they may differ by
