"""``--recipe short``: a tokenizer trained from nothing in the time that there is; its whole schedule follows from its
length in images, which is asked for or measured."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import torch

from ..errors import TrainingError
from ..stages import LossWeights, NoiseLevelConfig
from .checkpoint import checkpoints, read_about
from .config import TrainConfig
from .distributed import World
from .loop import Run
from .plan import Plan

NAME, UNSCALED = "short", "none"
USUAL_IMAGES, BATCH = 100_000, 16
SPARE = 0.15  # share of the time that is kept for validation, checkpoints and slower hours
TRIAL_SECONDS, TRIAL_SHARE = 20.0, 0.1  # a trial takes at most so long, and such a share of the time there is
LINES, VALIDATIONS = 200, 5  # of the log, in a whole run


def short(images: int, batch_size: int = BATCH) -> TrainConfig:
    """Return Stage 1A for a run of ``images``: four tenths of pure noise, where the code is all there is, then a
    mixture of all levels, then a cool-down over the last quarter (docs/TRAINING.md, "Is it working?")."""
    images = max(images // batch_size, 1) * batch_size

    def share(of: float) -> int:
        return round(images * of / batch_size) * batch_size

    return TrainConfig(
        images=images,
        batch_size=batch_size,
        learning_rate=1e-3,
        warmup_images=min(2_000, share(0.03)),
        cooldown_images=share(0.25),
        gradient_clip=0.5,
        perceptual_share=0.25,
        losses=LossWeights(commitment=0.01),
        noise_levels=NoiseLevelConfig(
            curriculum_mass=1.0,
            curriculum_images=share(0.4),
            anneal_images=share(0.15),
            pure_noise_mass=0.3,
            uniform_mass=0.05,
            location=0.8,
            scale=0.8,
        ),
        log_steps=max(1, min(20, images // batch_size // LINES)),
        check_images=max(batch_size, share(1 / VALIDATIONS)),
    )


def length_in(seconds: float, images_per_s: float, batch_size: int) -> int:
    """Return the images that a run of this speed sees in the time, with some to spare; a multiple of the batch."""
    return max(1, int(seconds * (1 - SPARE) * images_per_s / batch_size)) * batch_size


def measured_speed(plan: Plan[Any, Any, Any], source: Any, device: str, seconds: float) -> float:
    """Return images per second of some real updates of a model that is thrown away, on one process. seconds: the time
    that the run will have; a tenth of it at most is spent here, but never less than two updates."""
    world = World(device=torch.device(device))
    plan.to(world.device)
    model = plan.seeded_model()
    stage, ready, state, _ = plan.assemble(model, plan.config, world, None)
    run = Run(Path(), plan.config, stage, plan.kind, ready, state, world)
    until = time.monotonic() + min(TRIAL_SECONDS, TRIAL_SHARE * seconds)
    with plan.loader(source, model, plan.config, world, 0) as loader:
        batches = iter(loader)
        run.update(next(batches))  # the first one warms up
        run.settle()
        began, updates = time.monotonic(), 0
        while updates == 0 or time.monotonic() < until:
            run.update(next(batches))
            run.settle()
            updates += 1
        taken = max(time.monotonic() - began, 1e-9)
    return updates * plan.config.batch_size / taken


def stored_recipe(folder: Path, resume: Path | None) -> tuple[str, int | None] | None:
    """Return the recipe and the length that a run began with, where it has begun: in ``folder``, or by the checkpoint
    ``resume``. None where there is no checkpoint, or none that can be read."""
    for path in [*reversed(checkpoints(folder)), *([resume] if resume else [])]:
        try:
            about = read_about(path)
        except TrainingError:
            continue
        length = about.get("recipe_images")
        known = isinstance(length, int) and 0 < length < 10**10
        return str(about.get("recipe", UNSCALED)), length if known else None
    return None
