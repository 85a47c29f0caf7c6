"""``--recipe short``: a tokenizer trained from nothing in the time that there is.

The whole schedule follows from the run's length in images, which is asked for or measured.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from ..config import SamplerConfig
from ..devices import tf32_products
from ..errors import TrainingError
from ..flow import function_evaluations
from ..stages import LossWeights, NoiseLevelConfig
from .checkpoints.checkpoint import checkpoints, read_about
from .configuration.config import TrainConfig
from .loop import Run
from .plan import Plan
from .processes.distributed import World
from .session import free_memory

NAME, UNSCALED = "short", "none"
USUAL_IMAGES, BATCH = 100_000, 16
SPARE = 0.15  # share of the time that is kept for validation, checkpoints and slower hours
TRIAL_SECONDS, TRIAL_SHARE = 20.0, 0.1  # a trial takes at most so long, and such a share of the time there is
TRIAL_IMAGES = 4  # of the first updates of a trial, for each process
FEW_UPDATES, SMALLEST_BATCH = 32, 4  # a run of fewer updates takes smaller batches
LINES = 200  # of the log, in a whole run
MOST_VALIDATIONS, MOST_HELD_OUT = 6, 32  # of a whole run, the one at its end included; images of one
VALIDATION_SHARE = 0.07  # of the time, for all validations
FEWEST_HELD_OUT, FEWEST_AT_THE_END = 8, 2  # images that a validation is worth while with; where there is only one


class Validations(NamedTuple):
    """How often a run is validated, and on how many images; 0 and 0 is never."""

    times: int = MOST_VALIDATIONS  # in the whole run, the end included
    images: int = MOST_HELD_OUT  # held-out ones, each time


class Begun(NamedTuple):
    """What a run that goes on began with."""

    recipe: str  # its name
    images: int | None  # length by ``--recipe short``, None by another recipe
    validations: Validations = Validations()  # how often it is validated, and on how much
    batch_size: int = BATCH  # images of one update

    @property
    def about(self) -> dict[str, Any]:
        """Return what the checkpoints say of it."""
        about = {"recipe": self.recipe, "recipe_images": self.images, "recipe_validations": list(self.validations)}
        return about | {"recipe_batch_size": self.batch_size}


def short(images: int, batch_size: int = BATCH, validations: int = MOST_VALIDATIONS) -> TrainConfig:
    """Return Stage 1A for a run of ``images``.

    Four tenths of it are pure noise, where the code is all there is. Then comes a mixture of all levels, then a
    cool-down over the last quarter (docs/TRAINING.md, "Does it work?").

    validations: in all, with the one at the end.
    """
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
        validate_every=max(batch_size, share(1 / (validations - 1))) if validations > 1 else images,
    )


def length_in(seconds: float, images_per_s: float, batch_size: int) -> int:
    """Return how many images a run of this speed sees in the time, with some to spare; a multiple of the batch."""
    return max(1, int(seconds * (1 - SPARE) * images_per_s / batch_size)) * batch_size


def batch_in(seconds: float, images_per_s: float, processes: int) -> int:
    """Return the batch size of a run of that time: a smaller one where few updates fit, for as many processes."""
    batch_size = BATCH
    while length_in(seconds, images_per_s, batch_size) < FEW_UPDATES * batch_size and batch_size > SMALLEST_BATCH:
        batch_size //= 2
    return max(batch_size, processes)


def validations_in(seconds: float, images_per_s: float, sampler: SamplerConfig) -> Validations:
    """Return the validations that fit a small share of the time.

    A pass of the decoder is taken to cost a third of the update of an image. Each held-out image takes the passes of
    the sampler, that of one step, and that of the encoder.
    """
    seconds_an_image = (function_evaluations(sampler) + 2) / 3 / images_per_s
    images = int(VALIDATION_SHARE * seconds / seconds_an_image)
    for times, fewest in ((MOST_VALIDATIONS, FEWEST_HELD_OUT), (1, FEWEST_AT_THE_END)):
        if images // times >= fewest:
            return Validations(times, min(MOST_HELD_OUT, images // times))
    return Validations(0, 0)


def validations_of(images: int, sampler: SamplerConfig) -> Validations:
    """Return the validations of a run of so many images; a run of few has one at its end all the same."""
    found = validations_in(images, 1.0, sampler)
    return found if found.times else Validations(1, FEWEST_AT_THE_END)


def measured_speed(plan: Plan[Any, Any, Any], source: Any, world: World, seconds: float) -> float:
    """Return the images per second, over all processes, of some real updates of a model that is thrown away.

    It is the same number in each process.

    seconds: the time that the run will have; a tenth of it is spent here, but never less than two updates of a few
    images. Where more fits, whole batches are measured. Every process must call it.
    """
    until = time.monotonic() + min(TRIAL_SECONDS, TRIAL_SHARE * seconds)
    plan.to(world.device)
    model = plan.seeded_model()
    stage, ready, state, _ = plan.assemble(model, plan.config, world, None)
    run = Run(Path(), plan.config, stage, plan.kind, ready, state, world)
    whole = plan.config.batch_size
    few = min(whole, TRIAL_IMAGES * world.size)
    with _updates(run, plan, source, few) as update:
        update()  # the first one warms up
        taken = update()
    speed = few / taken
    spent = world.largest([time.monotonic() + 2 * taken * whole / few])[0]
    if spent < until or whole == few:
        with _updates(run, plan, source, whole) as update:
            update()
            times = [update()]
            while world.largest([time.monotonic() - until])[0] < 0:
                times.append(update())
        speed = whole * len(times) / sum(times)
    del run, stage, ready, state, model
    free_memory(world.device)
    return world.largest([speed])[0]


@contextmanager
def _updates(run: Run, plan: Plan[Any, Any, Any], source: Any, batch_size: int) -> Iterator[Any]:
    """Give a function that takes one update on a batch of this size, and returns the seconds that it took."""
    world = run.world
    micro = plan.config.micro_batch if batch_size == plan.config.batch_size else None
    run.config = replace(plan.config, batch_size=batch_size, micro_batch=micro)
    with tf32_products(run.config.tf32), plan.loader(source, run.state.model, run.config, world, 0) as loader:
        batches = iter(loader)

        def update() -> float:
            began = time.monotonic()
            run.update(next(batches))
            run.settle()
            return max(time.monotonic() - began, 1e-9)

        yield update


def stored_recipe(folder: Path, resume: Path | None) -> Begun | None:
    """Return what a run began with, where it has begun: in ``folder``, or by the checkpoint ``resume``.

    None is returned where there is no checkpoint, or none that can be read.
    """
    for path in [*reversed(checkpoints(folder)), *([resume] if resume else [])]:
        try:
            about = read_about(path)
        except TrainingError:
            continue
        return Begun(
            str(about.get("recipe", UNSCALED)),
            _whole(about.get("recipe_images"), 10**10),
            _validations(about.get("recipe_validations")),
            _whole(about.get("recipe_batch_size"), 10**6) or BATCH,
        )
    return None


def _whole(stored: Any, most: int) -> int | None:
    """Return what a checkpoint says where it is a whole number from 1 to ``most``."""
    return stored if type(stored) is int and 0 < stored <= most else None


def _validations(stored: Any) -> Validations:
    """Return what a checkpoint says of validations; the usual ones where it says nothing of use."""
    if not isinstance(stored, list) or len(stored) != 2 or not all(type(number) is int for number in stored):
        return Validations()
    times, images = stored
    return (
        Validations(times, images) if 0 <= times <= MOST_VALIDATIONS and 0 <= images <= MOST_HELD_OUT else Validations()
    )
