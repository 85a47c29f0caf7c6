"""A share of the blocks that is recomputed in the backward pass (``recompute_blocks``)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn

from flowmo.config import from_json, override, to_json
from flowmo.errors import ConfigError
from flowmo.presets import tiny
from flowmo.stages import LossWeights
from flowmo.tokenizer import FlowMo
from flowmo.training import TrainConfig, World, assemble
from flowmo.training.processes.distributed import blocks

BLOCKS = ("encoder.blocks.0", "encoder.blocks.1", "decoder.blocks.0", "decoder.blocks.1")


def differentiated(
    share: bool | float, precision: str, images: Tensor, lively: Callable[[nn.Module], nn.Module], frozen: int | None
) -> tuple[dict[str, Tensor], dict[str, int]]:
    """The gradients of Stage 1A, and how often each block ran."""
    torch.manual_seed(0)
    model: FlowMo = lively(FlowMo(tiny()))  # type: ignore[assignment]
    config = TrainConfig(losses=LossWeights(perceptual=0), freeze_encoder_after=frozen, precision="fp32")
    stage, ready, *_ = assemble(model, replace(config, recompute_blocks=share), World())
    names = {id(part): name for name, part in stage.model.named_modules()}
    ran: Counter[str] = Counter()

    def count(name: str, *_: object) -> None:
        ran[name] += 1

    for block in blocks(stage.model):
        first = next(part for part in block.modules() if isinstance(part, nn.Linear))
        first.register_forward_pre_hook(partial(count, names[id(block)]))
    ready.train()
    with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
        loss = ready(SimpleNamespace(images=images), torch.Generator().manual_seed(1), 0).total
    loss.backward()
    return {n: p.grad for n, p in stage.model.named_parameters() if p.grad is not None}, dict(ran)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize(("share", "twice"), [(0.2, 1), (0.25, 1), (0.5, 2), (0.7, 3), (1.0, 4), (True, 4)])
def test_the_first_blocks_run_twice_and_gradients_are_the_same(
    share: float, twice: int, precision: str, samples: Callable[[int], Tensor], lively: Callable[[nn.Module], nn.Module]
) -> None:
    images = samples(32)[:2]
    plain, once = differentiated(False, precision, images, lively, None)
    recomputed, ran = differentiated(share, precision, images, lively, None)
    assert tuple(once) == BLOCKS
    assert ran == {name: times * (2 if k < twice else 1) for k, (name, times) in enumerate(once.items())}
    assert plain.keys() == recomputed.keys()
    assert len(plain) > 20
    for name, gradient in plain.items():
        assert torch.equal(gradient, recomputed[name]), name


def test_a_frozen_encoder_is_not_recomputed(
    samples: Callable[[int], Tensor], lively: Callable[[nn.Module], nn.Module]
) -> None:
    images = samples(32)[:2]
    plain, once = differentiated(False, "fp32", images, lively, 0)
    recomputed, ran = differentiated(0.5, "fp32", images, lively, 0)
    assert once == ran
    assert all(torch.equal(gradient, recomputed[name]) for name, gradient in plain.items())


def test_switches_of_older_runs_are_read_and_shares_stay_shares() -> None:
    for text, value in (("false", False), ("true", True), ("0.125", 0.125)):
        config = override(TrainConfig(), [f"recompute_blocks={text}"])
        assert config.recompute_blocks is value or config.recompute_blocks == value == 0.125
        assert f'"recompute_blocks": {text},' in to_json(config)
        assert from_json(TrainConfig, to_json(config)) == config
    for text in ("1.5", "-0.1", "inf", "some", "null"):
        with pytest.raises(ConfigError, match="recompute_blocks must be"):
            override(TrainConfig(), [f"recompute_blocks={text}"])
