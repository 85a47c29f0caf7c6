"""Four processes that are two nodes of two, as far as the environment says: the gradients of a model cut over them by
FSDP2 against one process's, into a file; then runs of ``flowmo``, each argument a JSON list."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor

from flowmo.arch.modulation import AdaLNTable
from flowmo.cli.main import main
from flowmo.generation import Generator
from flowmo.generation import presets as generators
from flowmo.presets import tiny
from flowmo.stages import LossWeights
from flowmo.tokenizer import FlowMo
from flowmo.training import TrainConfig, World, assemble
from flowmo.training.processes.distributed import blocks, spread, whole

os.environ["LOCAL_WORLD_SIZE"] = "2"
COMPILED = {"calls": 0}
compiler: Any = torch.compile


def counting(forward: Callable[..., Any]) -> Any:
    """Compile as far as graphs, which run as they were traced and are counted."""

    def backend(graph: torch.fx.GraphModule, _: list[Tensor]) -> Callable[..., Any]:
        def run(*inputs: Any) -> Any:
            COMPILED["calls"] += 1
            return graph.forward(*inputs)

        return run

    return compiler(forward, backend=backend, fullgraph=True)


torch.compile = counting


class Logits(nn.Module):
    """A stage of a generator: something of its logits."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, tokens: Tensor) -> Tensor:
        labels, mask = torch.arange(len(tokens)), torch.arange(tokens.shape[1]).expand_as(tokens) % 3 == 0
        return cast(Tensor, self.model(tokens, labels, mask).float().square().mean())


def disturbed(model: nn.Module) -> nn.Module:
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.05 * torch.randn(parameter.shape, generator=generator)
    return model


def of_tokenizer(world: World, modulation: str, **settings: Any) -> dict[str, Any]:
    """Loss and gradients of Stage 1A on four images, of which each process takes its share."""
    torch.manual_seed(0)
    model = disturbed(FlowMo(replace(tiny(), modulation=modulation)))
    config = TrainConfig(losses=LossWeights(perceptual=0), **settings)
    stage, ready, *_ = assemble(cast(FlowMo, model), config, world)
    images = torch.rand((4, 3, 32, 32), generator=torch.Generator().manual_seed(2)) * 2 - 1

    def loss(k: int) -> Tensor:
        batch = SimpleNamespace(images=images[k : k + 1])
        return cast(Tensor, ready(batch, torch.Generator().manual_seed(k), 0).total)

    return differentiated(world, stage.model, loss, settings["precision"], settings.get("compile", False))


def of_generator(world: World, precision: str, strategy: Any) -> dict[str, Any]:
    torch.manual_seed(0)
    stage = Logits(disturbed(Generator(generators.tiny())))
    ready = spread(stage, world, strategy, precision=precision)
    length = generators.tiny().sequence_length
    tokens = torch.randint(0, 512, (4, length), generator=torch.Generator().manual_seed(2))
    return differentiated(world, stage.model, lambda k: ready(tokens[k : k + 1]), precision)


def differentiated(
    world: World, model: nn.Module, loss: Callable[[int], Tensor], precision: str, compiled: bool = False
) -> dict[str, Any]:
    seen: dict[str, str] = {}
    for name, part in [] if compiled else list(model.named_modules()):
        if isinstance(part, nn.Linear | nn.LayerNorm | AdaLNTable):
            weight = "table" if isinstance(part, AdaLNTable) else "weight"
            part.register_forward_pre_hook(
                lambda p, _, n=name, w=weight: seen.__setitem__(f"{n}.{w}", str(getattr(p, w).dtype))
            )
    COMPILED["calls"] = 0
    losses = []
    own = range(4) if world.size == 1 else [world.rank]
    for k in own:
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
            losses.append(loss(k))
        (losses[-1] / len(own)).backward()
    calls = COMPILED["calls"]
    gradients = {name: whole(p.grad) for name, p in model.named_parameters() if p.grad is not None}
    cut = [p for p in model.parameters() if isinstance(p, DTensor)]
    return {
        "losses": {k: float(value.detach()) for k, value in zip(own, losses, strict=True)},
        "gradients": gradients,
        "calls": calls,
        "blocks": len(blocks(model)),
        "types": seen,
        "mesh": tuple(cut[0].device_mesh.shape) if cut else (),
        "units": sum(isinstance(part, FSDPModule) for part in model.modules()),
    }


world = World.join("cpu")
torch.set_num_threads(1)
found: dict[str, Any] = {}
for name, where in (("cut", world), ("one", World())):
    if name == "one" and not world.main:  # one process is enough for that
        continue
    for precision in ("fp32", "bf16"):
        for modulation in ("per_block", "shared"):
            found[f"{name} {precision} {modulation}"] = of_tokenizer(
                where, modulation, precision=precision, strategy="fsdp"
            )
        found[f"{name} {precision} generator"] = of_generator(where, precision, "fsdp")
    for recompute in (False, True, 0.5):
        torch._dynamo.reset()  # as in a process of its own
        found[f"{name} compiled {recompute}"] = of_tokenizer(
            where, "per_block", precision="bf16", strategy="fsdp", compile=True, recompute_blocks=recompute
        )
every = world.gather({name: run["losses"] for name, run in found.items()})
if world.main:
    for losses in every:
        for name, values in losses.items():
            found[name]["losses"] |= values
    torch.save(found, Path(sys.argv[1]))
for text in sys.argv[2:]:
    code = main(json.loads(text))
    if code:
        sys.exit(code)
world.leave()
