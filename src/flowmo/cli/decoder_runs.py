"""What commands share that train the decoder of a finished tokenizer on its own samples: where they begin, their
validation on held-out images, and OUT/best.safetensors (Section 3.3, Stage 1B; O11)."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from ..config import to_dict
from ..errors import ConfigError, WeightsError
from ..evaluation.evaluator import FEWEST
from ..evaluation.validation import load_sampler_validation
from ..perceptual import load_distance
from ..presets import PRESETS, preset
from ..profiling.flops import tokenizer_cost
from ..tokenizer import FlowMo
from ..training import DistillTrainConfig, PostTrainConfig, World, train
from ..training.checkpoint import checkpoints
from ..training.decoder_plan import decoder_plan, in_words
from ..training.early_stopping import best, validations_of
from ..training.logs import NAME as LOG
from ..training.start import raw_model
from ..training.validation import IMAGES, SizedValidation, Validation
from ..viewing.plots import write_plot
from ..viewing.validation_curves import validation_figure
from ..weights import read_about, weights_path
from ..weights.load import checkpoint_folder
from . import common, models
from .fields import add_flag
from .runs import add_run_arguments, held_out, options_of, tell, training_source
from .values import positive, seed


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_run_arguments(parser)
    what = f"the tokenizer to start from: {common.MODEL_HELP}"
    parser.add_argument("--init", required=True, metavar="MODEL", help=what)
    parser.add_argument("--preset", choices=sorted(PRESETS), help="refuse weights of another configuration than this")
    checks = parser.add_argument_group("checks", "of the averaged weights, every check_images; rFID needs many images")
    add_flag(checks, "--check-count", positive, "held-out images", 256)
    add_flag(checks, "--check-skip", seed, "leave out the first N of them, kept for the end", 0)
    checks.add_argument("--no-rfid", action="store_true", help="leave rFID out, which costs most on a CPU")
    files = parser.add_argument_group("networks", "files of weights where none are installed")
    add_flag(files, "--network", Path, "weights of the network that is minimised")
    add_flag(files, "--lpips", Path, "weights of LPIPS (Alex), for checks")
    add_flag(files, "--inception", Path, "weights of Inception, for checks")
    common.add_model_arguments(parser, flag=False)


def run_decoder(
    arguments: argparse.Namespace,
    config: PostTrainConfig | DistillTrainConfig,
    new_model: Callable[[], FlowMo],
    teacher: FlowMo | None = None,
) -> int:
    """Train after the settings are known; return the exit code. The others are as ``decoder_plan`` takes them."""
    a, s = arguments, config.sample
    tell(f"training the decoder of {a.init} into {a.out} on {a.device}")
    network = load_distance(s.network, a.network, s.network_side)
    plan = decoder_plan(config, new_model, network, teacher, cost=tokenizer_cost)
    named = in_words(plan)

    def validation(model: FlowMo, world: World, count: int, folder: Path) -> Validation:
        images = held_out(a, model.config.image_size, count, a.check_skip).to(world.device)
        rfid = not a.no_rfid and count >= FEWEST
        measure = load_sampler_validation(images, folder, network[0], a.lpips, a.inception, rfid, tell, world)
        return lambda model, seen: measure(model, seen) | named

    if not checkpoints(a.out):
        print(*(f"{what}: {words}" for what, words in named.items()), sep="\n", flush=True)
    options = options_of(a)
    source = training_source(a)
    count = a.check_count if a.validation else min(a.check_count, len(source))
    check = SizedValidation(validation, count, a.out / IMAGES, 1 if a.no_rfid else FEWEST)
    train(replace(plan, validation=check), source, a.out, options)
    _draw(a.out)
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
        model = models.load_named(arguments, arguments.init, wants_raw and released)
    if arguments.preset:
        wanted, found = to_dict(preset(arguments.preset)), to_dict(model.config)
        other = [
            f"{name}: {found[name]} there, {wanted[name]} wanted" for name in wanted if wanted[name] != found[name]
        ]
        if other:
            raise WeightsError(
                f"{arguments.init} is not of the configuration {arguments.preset} ({', '.join(other)}); give its own "
                "weights, or leave --preset out"
            )
    return model
