"""The models that a command line asks for: loaded, made ready, and the size and sampler that they are to have."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from ...codec.sizes import check_original_size, image_size_of
from ...config import FlowMoConfig, SamplerConfig
from ...devices import usable_device
from ...errors import ConfigError
from ...flow.guidance import idle_guidance
from ...image_utils.convert import ORIGINAL
from ...inference import made_ready
from ...tokenizer import FlowMo
from ...weights import load
from ...weights.load import checkpoint_folder
from ...weights.sizes import size_warning


def load_models(
    arguments: argparse.Namespace, names: Sequence[str], tokens: bool = False, device: torch.device | None = None
) -> list[FlowMo]:
    """Return the models of these names, in the precision of the arguments. Raises WeightsError or ConfigError.

    tokens: whether the command needs them, so that a model of a continuous latent is refused.
    device: None for that of the arguments.
    """
    device = device or usable_device(arguments.device)
    raw_weights = getattr(arguments, "raw_weights", False)
    models = [load_named(arguments, name, raw_weights, device) for name in names]
    for model in models if tokens else ():
        model.require_tokens()
    if "precision" in arguments:
        models = [made_ready(model, arguments.precision, arguments.compile, arguments.batch_size) for model in models]
    return models


def load_model(arguments: argparse.Namespace, tokens: bool = False) -> FlowMo:
    """Return the model of ``--model``; see :func:`load_models`."""
    return load_models(arguments, [arguments.model], tokens)[0]


def load_named(
    arguments: argparse.Namespace | None, name: str, raw_weights: bool = False, device: torch.device | str = "cpu"
) -> FlowMo:
    """Return the model ``name`` on a device; of a released .pth the arguments say how many tokens it has, and so on.

    raw_weights: of a released .pth, those that are not averaged. Raises WeightsError or ConfigError.
    """
    flags = ("num_tokens", "image_size", "bits_per_group")
    extra = {flag: value for flag in flags if (value := getattr(arguments, flag, None)) is not None}
    released = Path(name).suffix in (".pth", ".pt")
    if (extra or raw_weights) and not released:
        raise ConfigError(f"--pth is for released .pth files; {name} stores these settings. Did you mean --size?")
    if (folder := checkpoint_folder(name)) is not None:
        from ...training.start import averaged_model  # only here: it takes long to import

        return averaged_model(folder).to(device)
    return load(name, ema=not raw_weights, device=device, **extra)


def coded_size(arguments: argparse.Namespace, config: FlowMoConfig) -> tuple[int, int]:
    """Return :func:`image_size_of` ``--size``; a size that the model was not trained at is warned of."""
    size = image_size_of(arguments.size, config)
    tell_other_size(size, config)
    return size


def own_size(arguments: argparse.Namespace, config: FlowMoConfig) -> tuple[int, int] | None:
    """Return :func:`coded_size`, or None where each picture keeps its own. ConfigError for a model of one size."""
    if arguments.size != ORIGINAL:
        return coded_size(arguments, config)
    check_original_size(config, arguments.fit)
    return None


def tell_other_size(size: tuple[int, int], config: FlowMoConfig) -> None:
    """Print a warning for a size that a model without a transform was not trained at, with how much is lost."""
    if (warning := size_warning(size, config)) is not None:
        advice = "Leave out --size, or use a model with a transform"
        print(f"warning: --size {size[0]}x{size[1]}: {warning}. {advice}", file=sys.stderr)


def sampling(arguments: argparse.Namespace) -> dict[str, Any]:
    """Return the settings of ``FlowMo.detokenize``."""
    a = arguments
    interval = a.interval and tuple(a.interval)
    named = {"num_steps": a.steps, "rho": a.rho, "guidance_scale": a.guidance, "guidance_interval": interval}
    return named | {"solver": a.solver, "seed": a.seed}


def sampler_given(arguments: argparse.Namespace) -> dict[str, Any]:
    """Return the settings of a SamplerConfig that the arguments name."""
    return {name: value for name, value in sampling(arguments).items() if name != "seed" and value is not None}


def sampler_of(arguments: argparse.Namespace, model: FlowMo) -> SamplerConfig:
    """Return the model's own sampler with what the arguments say. Raises ConfigError."""
    return replace(model.config.sampler, **sampler_given(arguments))


def tell_idle_guidance(arguments: argparse.Namespace, model: FlowMo) -> None:
    """Print a note where the guidance that was asked for acts at no step of the model's sampler."""
    if arguments.guidance is not None and (why := idle_guidance(sampler_of(arguments, model))) is not None:
        print(f"note: --guidance {why}", file=sys.stderr)
