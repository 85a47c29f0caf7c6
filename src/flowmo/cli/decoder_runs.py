"""What commands share that train the decoder of a finished tokenizer on its own samples: where they begin, their
validation on held-out images, and OUT/best.safetensors (Section 3.3, Stage 1B; O11)."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from .. import config as configs
from ..errors import ConfigError, TrainingError, WeightsError
from ..evaluation.evaluator import FEWEST
from ..evaluation.results import weights_checksum
from ..evaluation.validation import load_sampler_validation
from ..perceptual import load_distance
from ..presets import PRESETS
from ..profiling.flops import tokenizer_cost
from ..tokenizer import FlowMo
from ..training import Checkpoint, DistillTrainConfig, PostTrainConfig, TokenizerPlan, World, train
from ..training.checkpoint import checkpoints
from ..training.early_stopping import best, validations_of
from ..training.logs import NAME as LOG
from ..training.start import raw_model
from ..training.validation import IMAGES, SizedValidation, Validation
from ..viewing.plots import write_plot
from ..viewing.validation_curves import validation_figure
from ..weights import read_about, weights_path
from ..weights.load import checkpoint_folder
from . import common
from .runs import add_run_arguments, held_out, options_of, tell, training_source


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_run_arguments(parser)
    parser.add_argument(
        "--init", required=True, metavar="MODEL", help=f"the tokenizer to start from: {common.MODEL_HELP}"
    )
    parser.add_argument("--preset", choices=sorted(PRESETS), help="refuse weights of another configuration than this")
    checks = parser.add_argument_group("checks", "of the averaged weights, every check_images; rFID needs many images")
    checks.add_argument(
        "--check-count", type=common.positive, default=256, metavar="N", help="held-out images (default: 256)"
    )
    checks.add_argument(
        "--check-skip", type=common.seed, default=0, metavar="N", help="leave out the first N of them, kept for the end"
    )
    checks.add_argument("--no-rfid", action="store_true", help="leave rFID out, which costs most on a CPU")
    files = parser.add_argument_group("networks", "files of weights where none are installed")
    files.add_argument("--network", type=Path, metavar="FILE", help="weights of the network that is minimised")
    files.add_argument("--lpips", type=Path, metavar="FILE", help="weights of LPIPS (Alex), for checks")
    files.add_argument("--inception", type=Path, metavar="FILE", help="weights of Inception, for checks")
    common.add_model_arguments(parser, flag=False)


def run_decoder(
    arguments: argparse.Namespace,
    config: PostTrainConfig | DistillTrainConfig,
    new_model: Callable[[], FlowMo],
    teacher: FlowMo | None = None,
) -> int:
    """Train after the settings are known; return the exit code. new_model: from --init; it is asked again on
    resume, for its weights. teacher: on the CPU, the same on resume."""
    s = config.sample
    tell(f"training the decoder of {arguments.init} into {arguments.out} on {arguments.device}")
    network, described = load_distance(s.network, arguments.network, s.network_side)
    about: dict[str, Any] = {"sample_network": described}
    named = {"network": _words(described)}
    if teacher is not None:
        sampler = teacher.config.sampler
        about["teacher"] = {"sha256": weights_checksum(teacher), "sampler": configs.to_dict(sampler)}
        named["teacher"] = (
            f"sha256 {about['teacher']['sha256'][:8]}, {sampler.num_steps} steps, rho {sampler.rho:g}, guidance "
            f"{sampler.guidance_scale:g}"
        )

    def begin() -> FlowMo:
        model = new_model()
        side = model.config.image_size
        network(*torch.zeros(2, 1, 3, side, side))  # tells early that images are too small for it
        about["init"] = weights_checksum(model)
        return model

    def fits(checkpoint: Checkpoint) -> bool:
        """Return whether the weights are those that the run began from; those that are gone are no longer needed."""
        if checkpoint.about.get("teacher") != about.get("teacher"):
            raise TrainingError(
                f"{checkpoint.path} is of a run with another teacher, or another sampler of it; give the run's own, or "
                "another folder"
            )
        about["init"] = checkpoint.about.get("init")
        try:
            return weights_checksum(new_model()) == about["init"]
        except WeightsError:
            return True

    def validation(model: FlowMo, world: World, count: int, folder: Path) -> Validation:
        images = held_out(arguments, model.config.image_size, count, arguments.check_skip)
        measure = load_sampler_validation(
            images.to(world.device),
            folder,
            network,
            arguments.lpips,
            arguments.inception,
            not arguments.no_rfid and count >= FEWEST,
            tell,
            world,
        )
        return lambda model, seen: measure(model, seen) | named

    if not checkpoints(arguments.out):
        print(*(f"{what}: {words}" for what, words in named.items()), sep="\n", flush=True)
    options = options_of(arguments)
    source = training_source(arguments)
    count = arguments.check_count if arguments.validation else min(arguments.check_count, len(source))
    check = SizedValidation(validation, count, arguments.out / IMAGES, 1 if arguments.no_rfid else FEWEST)
    plan = TokenizerPlan(config, begin, check, fits, about, tokenizer_cost, perceptual=network, teacher=teacher)
    train(plan, source, arguments.out, options)
    _draw(arguments.out)
    return 0


def _draw(folder: Path) -> None:
    """Draw the curves of the run's validations, where there are two and matplotlib is there."""
    found = validations_of(folder / LOG)
    if len(found) < 2:
        return
    try:
        write_plot(folder / IMAGES / "checks.png", validation_figure(found, best(found)["images"]))
    except ConfigError as error:
        print(f"note: no curves are drawn: {error}", file=sys.stderr)


def load_init(arguments: argparse.Namespace, raw: bool = False) -> FlowMo:
    """Return the averaged weights, with which token files were made; raw ones where they are asked for (D4)."""
    path, wants_raw = Path(arguments.init), arguments.raw_weights or raw
    released = path.suffix in (".pth", ".pt")
    if wants_raw and path.is_dir() and (checkpoints(path) or checkpoint_folder(arguments.init)):
        model = raw_model(path)
    else:
        if wants_raw and not released and "raw" not in read_about(weights_path(arguments.init)).get("weights", ""):
            raise ConfigError(
                f"{arguments.init} holds averaged weights, and raw ones are wanted; give a released .pth file, the "
                "folder of a run with its checkpoints, or raw_before_cooldown.safetensors; or leave out --recipe"
            )
        model = common.load_named(arguments, arguments.init, wants_raw and released)
    if arguments.preset and PRESETS[arguments.preset]() != model.config:
        raise WeightsError(
            f"{arguments.init} is not of the configuration {arguments.preset} "
            f"({_difference(arguments.preset, model)}); give its own weights, or leave --preset out"
        )
    return model


def _difference(preset: str, model: FlowMo) -> str:
    wanted, found = configs.to_dict(PRESETS[preset]()), configs.to_dict(model.config)
    return ", ".join(f"{n}: {found[n]} there, {wanted[n]} wanted" for n in wanted if wanted[n] != found[n])


def _words(described: dict[str, Any]) -> str:
    side = f" at {described['side']} px" if "side" in described else ""
    return f"{described['name']}{side} (sha256 {described['sha256'][:8]})"
