"""One process of several under torchrun: count the bytes of tensors during updates of the loop, from before the model
is spread, and write the most of each update, by rank, next to what was estimated. For each size of a micro-batch."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import torch

from flowmo.data import Batch
from flowmo.presets import tiny
from flowmo.profiling.memory import LiveTensors, memory_per_rank
from flowmo.stages import LossWeights
from flowmo.tokenizer import FlowMo
from flowmo.training import TrainConfig, World
from flowmo.training.loop import Run
from flowmo.training.start import TOKENIZER, assemble

UPDATES, PARTS = 4, 3


def measured(world: World, folder: Path, micro: int) -> dict[str, object]:
    model, count = tiny(), micro * PARTS
    plain = TrainConfig(precision="fp32", losses=LossWeights(perceptual=0))
    train = replace(plain, batch_size=count * world.size, micro_batch=micro)
    generator = torch.Generator().manual_seed(world.rank)
    shape = (count, 3, model.image_size, model.image_size)
    pixels = torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)
    batch = Batch(pixels, None, list(range(count)), [str(k) for k in range(count)], [], count)
    live, most = LiveTensors(), []
    with live:
        stage, ready, state, meter = assemble(FlowMo(model), train, world)
        run = Run(folder, train, stage, TOKENIZER, ready, state, world, meter=meter)
        state.tensors()  # moments too
        for _ in range(UPDATES):
            live.peak = live.now
            run.update(batch)
            most.append(live.peak)
        run.settle()
    return {"most": most, "estimate": memory_per_rank(model, train, world.size, "cpu")._asdict()}


def main(folder: Path, *micro: str) -> None:
    world = World.join("cpu")
    found = {size: measured(world, folder, int(size)) for size in micro}
    (folder / f"{world.rank}.json").write_text(json.dumps(found))
    world.leave()


main(Path(sys.argv[1]), *sys.argv[2:])
