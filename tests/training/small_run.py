"""A real run of the smallest model in this process, step by step under the eyes of a test."""

from __future__ import annotations

from pathlib import Path

from run_support import BATCH

from flowmo.data import BatchLoader, open_images
from flowmo.presets import tiny
from flowmo.stages import LossWeights
from flowmo.tokenizer import FlowMo
from flowmo.training import Log, Run, TrainConfig, World, assemble
from flowmo.training.start import TOKENIZER

CONFIG = TrainConfig(
    images=64, batch_size=BATCH, learning_rate=1e-3, warmup_images=0, cooldown_images=0, workers=1, log_steps=1,
    losses=LossWeights(perceptual=0), validate_every=1000, most_skipped=3,
)  # fmt: skip


def real_run(data: Path, folder: Path, config: TrainConfig = CONFIG) -> tuple[Run, BatchLoader]:
    step, ready, state, meter = assemble(FlowMo(tiny()), config, World())
    log = Log(folder, say=lambda _: None, tensorboard=False)
    run = Run(folder, config, step, TOKENIZER, ready, state, World(), log, meter=meter)
    return run, BatchLoader(open_images(data), BATCH, 32, 0, workers=1)
