"""What commands share that train the decoder of a finished tokenizer on what it paints: where they begin, their checks
on held-out images, and OUT/best.safetensors (Section 3.3, Stage 1B; O11)."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from .. import config as configs
from ..errors import ConfigError, TrainingError, WeightsError
from ..evaluation.protocols import STANDARD
from ..evaluation.results import weights_checksum
from ..evaluation.validation import make_sampler_check
from ..metrics.features import load_inception
from ..perceptual import load_distance, load_lpips
from ..presets import PRESETS
from ..tokenizer import FlowMo
from ..training import Checkpoint, TrainConfig
from ..training.checkpoint import checkpoints
from ..training.early_stopping import best, checks_of
from ..training.logs import NAME as LOG
from ..training.loop import PICTURES, Check
from ..training.start import raw_model
from ..viewing.check_curves import check_figure
from ..viewing.plots import write_plot
from ..weights import read_about, weights_path
from . import common
from .runs import Stage, add_run_arguments, run_training

Network = TypeVar("Network")


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
    config: TrainConfig,
    new_model: Callable[[], FlowMo],
    teacher: FlowMo | None = None,
) -> int:
    """All of a command after its settings are known; the exit code. new_model: from --init; it is asked again on
    resume, for its weights. teacher: on the CPU, the same on resume."""
    s = config.sample
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
        """Weights that are no longer there are no longer needed."""
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

    def check(images: Tensor, distance: nn.Module | None) -> Check:
        return _check(arguments, named, images, distance)

    if not checkpoints(arguments.out):
        print(*(f"{what}: {words}" for what, words in named.items()), sep="\n", flush=True)
    counts = (arguments.check_count, arguments.check_skip)
    stage = Stage(config, begin, fits, lambda: network, check, *counts, about, teacher)
    code = run_training(arguments, stage)
    _draw(arguments.out)
    return code


def _draw(folder: Path) -> None:
    """The curves of the run's checks, where there are two and matplotlib is there."""
    checks = checks_of(folder / LOG)
    if len(checks) < 2:
        return
    try:
        write_plot(folder / PICTURES / "checks.png", check_figure(checks, best(checks)["images"]))
    except ConfigError as error:
        print(f"note: no curves are drawn: {error}", file=sys.stderr)


def load_init(arguments: argparse.Namespace, raw: bool = False) -> FlowMo:
    """The averaged weights, with which token files were made; raw ones where they are asked for (D4)."""
    path, wants_raw = Path(arguments.init), arguments.raw_weights or raw
    released = path.suffix in (".pth", ".pt")
    if wants_raw and path.is_dir() and checkpoints(path):
        model = raw_model(path)
    else:
        if wants_raw and not released and "raw" not in read_about(weights_path(arguments.init)).get("weights", ""):
            raise ConfigError(
                f"{arguments.init} holds averaged weights, and raw ones are wanted; give a released .pth file, the "
                "folder of a run with its checkpoints, or raw_before_cooldown.safetensors; or leave out --recipe"
            )
        settings = {**vars(arguments), "model": arguments.init, "raw_weights": wants_raw and released, "device": "cpu"}
        model = common.load_model(argparse.Namespace(**settings))
    if arguments.preset and PRESETS[arguments.preset]() != model.config:
        raise WeightsError(
            f"{arguments.init} is not of the configuration {arguments.preset} "
            f"({_difference(arguments.preset, model)}); give its own weights, or leave --preset out"
        )
    return model


def _difference(preset: str, model: FlowMo) -> str:
    wanted, found = configs.to_dict(PRESETS[preset]()), configs.to_dict(model.config)
    return ", ".join(f"{n}: {found[n]} there, {wanted[n]} wanted" for n in wanted if wanted[n] != found[n])


def _check(arguments: argparse.Namespace, named: dict[str, str], images: Tensor, distance: nn.Module | None) -> Check:
    """named: more for each line of the log."""

    def there(load: Callable[[], Network], file: Path | None, what: str) -> Network | None:
        try:
            return load()
        except WeightsError as error:
            if file is not None:
                raise
            print(f"note: checks leave {what} out: {error}", file=sys.stderr)
            return None

    device = torch.device(arguments.device)
    lpips = there(lambda: load_lpips("alex", arguments.lpips).to(device), arguments.lpips, "LPIPS")
    inception = None
    if not arguments.no_rfid:
        inception = there(
            lambda: load_inception(arguments.inception, None, STANDARD.inception).to(device),
            arguments.inception,
            "rFID",
        )
    measure = make_sampler_check(images.to(device), arguments.out / PICTURES, distance, lpips, inception)
    return lambda model, seen: measure(model, seen) | named


def _words(described: dict[str, Any]) -> str:
    side = f" at {described['side']} px" if "side" in described else ""
    return f"{described['name']}{side} (sha256 {described['sha256'][:8]})"
