"""Blocks that are compiled and recomputed (``compile``, ``recompute_blocks``): both must hold at once."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._dynamo.backends.common import aot_autograd

from flowmo.config import TransformerConfig
from flowmo.data import open_images
from flowmo.presets import tiny
from flowmo.stages import LossWeights, SampleLossConfig
from flowmo.tokenizer import FlowMo
from flowmo.training import PostTrainConfig, TokenizerPlan, TrainConfig, TrainOptions, World, assemble, session, train

SMALL = TransformerConfig(patch_size=8, width=32, depth=1, heads=2)
STEPS = 2


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, int]]:
    """Calls of compiled graphs, forward and backward; the graphs run as they were traced, without kernels of their
    own."""
    counted = {"forward": 0, "backward": 0}

    def compiler(kind: str) -> Callable[..., Any]:
        def compile(graph: torch.fx.GraphModule, _: Any) -> Callable[..., Any]:
            def run(arguments: list[Any]) -> Any:
                counted[kind] += 1
                return graph.forward(*arguments)

            run._boxed_call = True  # type: ignore[attr-defined]
            return run

        return compile

    backend = aot_autograd(fw_compiler=compiler("forward"), bw_compiler=compiler("backward"))
    original = torch.compile
    monkeypatch.setattr(torch, "compile", lambda forward: original(forward, backend=backend))
    torch._dynamo.reset()
    yield counted
    torch._dynamo.reset()


def gradients(
    lively: Callable[[nn.Module], nn.Module], config: TrainConfig | PostTrainConfig, images: Tensor
) -> list[Tensor]:
    torch.manual_seed(0)
    model: FlowMo = lively(FlowMo(replace(tiny(), encoder=SMALL, decoder=SMALL)))  # type: ignore[assignment]
    stage, ready, *_ = assemble(model, config, World(), lambda a, b: (a - b).square().mean((1, 2, 3)))
    ready.train()
    ready(SimpleNamespace(images=images), torch.Generator().manual_seed(1), 0).total.backward()
    return [p.grad for p in stage.model.parameters() if p.grad is not None]


@pytest.mark.parametrize("recompute_blocks", [False, True, 0.5])
@pytest.mark.parametrize("stage", ["1A", "1B", "1B, its chain recomputed"])
def test_every_pass_of_every_block_is_compiled(
    stage: str,
    recompute_blocks: bool | float,
    calls: dict[str, int],
    samples: Callable[[int], Tensor],
    lively: Callable[[nn.Module], nn.Module],
) -> None:
    """One call a block and pass, forward and backward; a chain that is recomputed runs each block's forward pass twice.
    The gradients are those of plain blocks."""
    images, config = samples(32)[:2], None
    if stage == "1A":
        config = TrainConfig(precision="fp32", losses=LossWeights(perceptual=0.1))
        expected = {"forward": 2, "backward": 2}  # a block of each side
    else:
        sample = SampleLossConfig(weight=1.0, num_steps=STEPS, recompute=stage != "1B")
        config = PostTrainConfig(precision="fp32", sample=sample)
        passes = 1 + STEPS  # of the decoder's block: of the flow term, and of the chain
        expected = {"forward": 1 + passes + STEPS * sample.recompute, "backward": passes}
    plain = gradients(lively, config, images)
    assert calls == {"forward": 0, "backward": 0}
    compiled = gradients(lively, replace(config, compile=True, recompute_blocks=recompute_blocks), images)
    assert calls == expected
    assert len(compiled) == len(plain) > 10
    for a, b in zip(compiled, plain, strict=True):
        assert float((a - b).norm()) <= 1e-4 * float(b.norm()) + 1e-9


def test_blocks_stay_compiled_when_the_encoder_freezes(
    calls: dict[str, int], data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The run is built anew in the same process, and the compiler keeps a limited number of versions of a block. What
    was compiled keeps nothing of the old model alive."""
    models: list[weakref.ref[nn.Module]] = []
    alive: list[int] = []
    begin = session.Session.begin

    def spied(self: session.Session, fresh: list[Any]) -> Any:
        alive.append(sum(model() is not None for model in models))
        result = begin(self, fresh)
        models.append(weakref.ref(result[0].stage.model))
        return result

    monkeypatch.setattr(session.Session, "begin", spied)
    deep = replace(SMALL, depth=3)
    config = TrainConfig(
        images=32, batch_size=8, warmup_images=0, cooldown_images=0, precision="bf16", workers=0, compile=True,
        losses=LossWeights(perceptual=0), freeze_encoder_after=16, validate_every=1000,
    )  # fmt: skip
    plan = TokenizerPlan(config, lambda: FlowMo(replace(tiny(), encoder=deep, decoder=deep)))
    assert train(plan, open_images(str(data)), tmp_path, TrainOptions(say=lambda _: None)).finished
    assert alive == [0, 0]
    blocks, updates = 6, 4
    assert calls["forward"] == blocks * updates
    assert calls["backward"] == blocks * 2 + 3 * 2  # of the decoder alone once the encoder is frozen
