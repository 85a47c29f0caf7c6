"""Muon beside Adam (O16), and shares of the learning rate: what moves, by how much, and exactly again after a stop."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from run_support import SELDOM, checkpoints_of, command, kill, log_of, start, wait_for_step
from safetensors.torch import load_file
from torch import nn

from flowmo import FlowMo, presets
from flowmo.cli.main import main
from flowmo.config import TransformerConfig
from flowmo.errors import ConfigError
from flowmo.training import TrainConfig
from flowmo.training.configuration.config import LearningRates
from flowmo.training.optimization.muon import Muon, orthogonalized
from flowmo.training.processes.distributed import World, block_matrices
from flowmo.training.start import assemble


@pytest.mark.parametrize("shape", [(48, 48), (24, 96), (96, 24)])
def test_the_orthogonal_factor_is_found(shape: tuple[int, int]) -> None:
    matrix = torch.randn(shape, generator=torch.Generator().manual_seed(0)) * 1e-3
    u, _, vh = torch.linalg.svd(matrix, full_matrices=False)
    found = orthogonalized(matrix)
    values = torch.linalg.svdvals(found)
    assert 0.6 < float(values.min()) <= float(values.max()) < 1.25
    alignment = float((found * (u @ vh)).sum() / (found.norm() * (u @ vh).norm()))
    assert alignment > 0.97


def test_it_learns_directions_of_small_gradients_as_well() -> None:
    generator = torch.Generator().manual_seed(0)
    turned, _ = torch.linalg.qr(torch.randn(32, 32, generator=generator))
    inputs = torch.randn(512, 32, generator=generator) * torch.logspace(0, -2, 32) @ turned
    wanted = inputs @ torch.randn(32, 32, generator=generator)
    weight = nn.Parameter(torch.zeros(32, 32))
    optimizer = Muon([{"params": [weight]}], [], lr=0.3, betas=(0.9, 0.95))
    for step in range(200):
        optimizer.param_groups[0]["lr"] = 0.3 * (1 - step / 200)
        optimizer.zero_grad()
        (inputs @ weight - wanted).square().mean().backward()
        optimizer.step()
    error = (inputs @ weight.detach() - wanted).square().mean()
    assert float(error) < 0.001 * float(wanted.square().mean())


def test_its_step_is_as_large_as_adams() -> None:
    weight = nn.Parameter(torch.zeros(64, 256))
    weight.grad = torch.randn(weight.shape, generator=torch.Generator().manual_seed(0))
    Muon([{"params": [weight]}], [], lr=1.0, betas=(0.9, 0.95)).step()
    assert 0.15 < float(weight.detach().square().mean().sqrt()) < 0.25


def test_a_step_that_is_not_finite_changes_nothing() -> None:
    weight, bias = nn.Parameter(torch.ones(4, 4)), nn.Parameter(torch.ones(4))
    optimizer = Muon([{"params": [weight]}], [{"params": [bias]}], 0.1, (0.9, 0.95))
    weight.grad, bias.grad = torch.full((4, 4), torch.nan), torch.full((4,), torch.nan)
    optimizer.found_inf = torch.ones(())
    optimizer.step()
    assert weight.eq(1).all()
    assert bias.eq(1).all()
    assert optimizer.state[weight]["momentum"].eq(0).all()
    optimizer.found_inf = torch.zeros(())
    weight.grad, bias.grad = torch.eye(4), torch.ones(4)
    optimizer.step()
    assert weight.isfinite().all()
    assert not weight.eq(1).all()
    assert not bias.eq(1).any()


def test_the_matrices_of_the_blocks_are_muons_and_each_parameter_is_in_one_group() -> None:
    model = FlowMo(presets.tiny())
    state = assemble(model, TrainConfig(optimizer="muon"), World()).state
    optimizer = state.optimizer
    assert isinstance(optimizer, Muon)
    own = {id(p) for group in optimizer.matrix_groups for p in group["params"]}
    assert own == {id(p) for p in block_matrices(model).values()}
    everything = [id(p) for group in optimizer.param_groups for p in group["params"]]
    assert sorted(everything) == sorted(id(p) for p in model.parameters() if p.requires_grad)


def test_shares_of_the_learning_rate_reach_their_parts() -> None:
    model = FlowMo(presets.flowmo_mini_64())
    rates = LearningRates(readout=0.25, blocks=2.0, encoder=0.5)
    state = assemble(model, TrainConfig(learning_rates=rates), World()).state
    scale = {id(p): group["scale"] for group in state.optimizer.param_groups for p in group["params"]}
    inside = set(block_matrices(model))
    for name, parameter in model.named_parameters():
        expected = 0.25 if name.startswith("decoder.readout.") else 2.0 if name in inside else 1.0
        assert scale[id(parameter)] == expected * (0.5 if name.startswith("encoder.") else 1.0), name


def test_what_cannot_work_is_refused() -> None:
    with pytest.raises(ConfigError, match="strategy=fsdp"):
        TrainConfig(optimizer="muon", strategy="fsdp")
    tiny = presets.tiny()
    based = replace(tiny, decoder=TransformerConfig(8, 64, 2, 2, base_width=32))
    with pytest.raises(ConfigError, match="muP"):
        assemble(FlowMo(based), TrainConfig(optimizer="muon"), World())


def test_a_killed_run_with_muon_ends_as_one_that_was_not(data: Path, tmp_path: Path) -> None:
    settings = {"optimizer": "muon", "learning_rates.blocks": 2, "learning_rates.readout": 0.5, "images": 96}
    assert main(command(data, tmp_path / "whole", **settings | SELDOM)) == 0
    process = start(command(data, tmp_path / "killed", **settings))
    wait_for_step(process, tmp_path / "killed", 4)
    kill(process)
    assert main(command(data, tmp_path / "killed", **settings | SELDOM)) == 0
    whole, killed = (load_file(tmp_path / name / "model.safetensors") for name in ("whole", "killed"))
    assert all(torch.equal(whole[name], killed[name]) for name in whole)
    assert log_of(tmp_path / "whole") == log_of(tmp_path / "killed")
    assert checkpoints_of(tmp_path / "killed")
