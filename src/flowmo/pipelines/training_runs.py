"""Whole runs in one call, each with its validation: a tokenizer, a decoder alone, a generator (Section 4.1)."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from ..comparison.peers.tokenizer import PeerTokenizer
from ..config import to_json
from ..errors import ConfigError
from ..evaluation.evaluator import FEWEST
from ..evaluation.validation import load_sampler_validation, make_validation
from ..generation import Generator, GeneratorConfig, load_generator
from ..perceptual import load_distance, load_lpips
from ..profiling.flops import generator_cost, tokenizer_cost
from ..tokenizer import FlowMo
from ..training import (
    Checkpoint,
    DistillTrainConfig,
    GeneratorPlan,
    GeneratorTrainConfig,
    Outcome,
    PostTrainConfig,
    TokenizerPlan,
    TrainOptions,
    World,
    short,
    train,
)
from ..training.checkpoints.checkpoint import checkpoints
from ..training.configuration.config import STAGES
from ..training.configuration.request import Request
from ..training.data.image_data import ImageData
from ..training.data.token_data import TokenSet
from ..training.decoder_plan import decoder_plan, in_words
from ..training.monitoring.early_stopping import best, validations_of
from ..training.monitoring.logs import NAME as LOG
from ..training.monitoring.validation import IMAGES, SizedValidation, Validation
from ..training.start import stored_model_config
from ..viewing.plots import write_plot
from ..viewing.validation_curves import validation_figure
from .class_images import check_layout
from .generator_validation import HELD_OUT, SAMPLES, make_generator_validation

Say = Callable[[str], None]


@dataclass(frozen=True)
class TokenizerRun:
    """A run that trains encoder and decoder."""

    request: Request  # what is asked of it
    data: ImageData  # to train and to validate on
    out: Path  # its folder
    options: TrainOptions  # how it goes
    lpips: Path | None = None  # weights of the perceptual network, where none are installed

    def begun(self) -> short.Begun:
        """Return what it begins with, or has begun with."""
        return self.request.begun(short.stored_recipe(self.out, self.options.resume))

    def settings(self, say: Say = lambda line: None) -> str:
        """Return the configurations of model and training as JSON. say: told of settings that change nothing."""
        begun = self.begun()
        config = self.request.config(begun, say)
        return f"{to_json(self.request.model_config(begun.recipe))}\n{to_json(config)}"


def train_tokenizer(run: TokenizerRun, say: Say = lambda line: None) -> Outcome:
    """Train encoder and decoder as is asked for, from the folder's newest checkpoint where there is one.

    By the recipe ``short`` the run is fitted to its time, after the speed was measured.
    say: told lines for a person. Raises as :func:`train` does.
    """
    request, data, folder, options = run.request, run.data, run.out, run.options
    deadline = time.monotonic() + options.seconds
    begun = run.begun()
    config = request.config(begun, say)
    if not request.init:
        request.model_config(begun.recipe)  # a preset or a setting that there is not is told before anything else
    say(f"training {request.start}, recipe {begun.recipe}, into {folder} on {options.device}")

    def fits(checkpoint: Checkpoint) -> bool:  # of a run that began from weights, those are no longer needed
        return bool(request.init) or stored_model_config(checkpoint) == request.model_config(begun.recipe)

    def validation(model: FlowMo, world: World, count: int, sheets: Path) -> Validation:
        """Return what measures ``count`` held-out images, each process its share."""
        images = data.held_out(model.config.image_size, count, say)
        decode = STAGES[config.stage].decode
        return make_validation(images, sheets, perceptual, decode=decode, processes=world)

    source = data.training_source(folder)
    perceptual = load_lpips(config.lpips_network, run.lpips) if config.lpips_network else None
    new_model = partial(request.new_model, begun.recipe)
    plan = TokenizerPlan(config, new_model, fits=fits, cost=tokenizer_cost, perceptual=perceptual)
    with World.join(options.device) as world:
        if begun.recipe != short.NAME:
            begun = begun._replace(images=None)
        elif begun.images is None:
            begun = request.fitted(plan, source, world, deadline - time.monotonic(), say)
            config = request.config(begun, say)
            if not begun.validations.times:
                say(f"too short to validate; flowmo reconstruct IMAGES --model {folder} shows what it learned")
        count = data.most(begun.validations.images, source)
        made = SizedValidation(validation, count, folder / IMAGES) if count else None
        left = replace(options, seconds=max(0.0, deadline - time.monotonic()))
        return train(replace(plan, config=config, validation=made, about=begun.about), source, folder, left)


@dataclass(frozen=True)
class DecoderValidation:
    """How the decoder of a finished tokenizer is validated while it trains."""

    count: int = 256  # held-out images
    skip: int = 0  # images before them that are left out
    rfid: bool = True  # whether rFID is measured, which costs most on a CPU
    network: Path | None = None  # weights of the network that is minimised, where none are installed
    lpips: Path | None = None  # likewise of LPIPS (Alex)
    inception: Path | None = None  # likewise of Inception


def train_decoder(
    config: PostTrainConfig | DistillTrainConfig,
    new_model: Callable[[], FlowMo],
    data: ImageData,
    folder: str | Path,
    options: TrainOptions,
    how: DecoderValidation | None = None,
    teacher: FlowMo | None = None,
    say: Say = lambda line: None,
) -> Outcome:
    """Train the decoder of a finished tokenizer, write its best weights and draw its validations.

    new_model, teacher: as :func:`decoder_plan` takes them. how: it is validated. say: told lines for a person.
    Raises as :func:`train` does.
    """
    deadline, how = time.monotonic() + options.seconds, how or DecoderValidation()
    folder = Path(folder)
    network = load_distance(config.sample.network, how.network, config.sample.network_side, config.sample.lpips_weight)
    plan = decoder_plan(config, new_model, network, teacher, cost=tokenizer_cost)
    named = in_words(plan)

    def validation(model: FlowMo, world: World, count: int, sheets: Path) -> Validation:
        images = data.held_out(model.config.image_size, count, say, how.skip).to(world.device)
        rfid = how.rfid and count >= FEWEST
        measure = load_sampler_validation(images, sheets, network[0], how.lpips, how.inception, rfid, say, world)
        return lambda model, seen: measure(model, seen) | named

    if not checkpoints(folder):
        options.say("\n".join(f"{what}: {words}" for what, words in named.items()))
    source = data.training_source(folder)
    count = data.most(how.count, source)
    sized = SizedValidation(validation, count, folder / IMAGES, FEWEST if how.rfid else 1)
    left = replace(options, seconds=max(0.0, deadline - time.monotonic()))
    outcome = train(replace(plan, validation=sized), source, folder, left)
    _draw(folder, say)
    return outcome


def train_generator(
    config: GeneratorTrainConfig,
    start: GeneratorConfig | str,
    data: TokenSet,
    held_out: TokenSet,
    folder: str | Path,
    options: TrainOptions,
    tokenizer: FlowMo | PeerTokenizer | None = None,
) -> Outcome:
    """Train a generator (Stage 2), from the folder's newest checkpoint where there is one.

    start: a new generator's configuration, or the file of one. held_out: tokens to validate on.
    tokenizer: the one of the tokens, which decodes sample images. Raises TokenFileError for another one.
    """
    folder = Path(folder)
    deadline = time.monotonic() + options.seconds
    if tokenizer is not None:
        check_layout(data.layout, tokenizer)

    def new_model() -> Generator:
        return load_generator(start) if isinstance(start, str) else Generator(start, data.classes)

    def validation(model: Generator, world: World, count: int, sheets: Path) -> Validation:
        decoder = tokenizer.to(world.device) if tokenizer is not None else None
        samples = SAMPLES if count == most else 1
        return make_generator_validation(held_out, config, sheets, world, count, samples, decoder)

    most = min(HELD_OUT, len(held_out))
    sized = SizedValidation(validation, most, folder / IMAGES, HELD_OUT // SAMPLES)
    plan = GeneratorPlan(config, new_model, sized, cost=generator_cost)
    return train(plan, data, folder, replace(options, seconds=max(0.0, deadline - time.monotonic())))


def _draw(folder: Path, say: Say) -> None:
    """Draw the curves of the run's validations, where there are two and matplotlib is there."""
    found = validations_of(folder / LOG)
    if len(found) < 2:
        return
    try:
        write_plot(folder / IMAGES / "validations.png", validation_figure(found, best(found)["images"]))
    except ConfigError as error:
        say(f"note: no curves are drawn: {error}")
