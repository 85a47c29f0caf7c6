"""The models that a command line asks for: loaded, made ready, and the size and sampler that they are to have."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from ...codec.sizes import check_original_size, image_size_of
from ...config import FlowMoConfig, SamplerConfig
from ...devices import usable_device
from ...flow.guidance import idle_guidance
from ...image_utils.convert import ORIGINAL
from ...pipelines.loading import LoadOptions
from ...tokenizer import FlowMo
from ...weights.sizes import size_warning
from .fields import fields_of


def load_options(arguments: argparse.Namespace, **changes: Any) -> LoadOptions:
    """Return how the arguments say that models are loaded. changes: fields to set otherwise. Raises ConfigError."""
    given = fields_of(arguments, LoadOptions) | changes
    return LoadOptions(**given | {"device": usable_device(given.get("device", "cpu"))})


def load_models(arguments: argparse.Namespace, names: Sequence[str], tokens: bool = False) -> list[FlowMo]:
    """Return :meth:`LoadOptions.load_ready` as the arguments say. Raises WeightsError or ConfigError."""
    return load_options(arguments).load_ready(names, tokens)


def load_model(arguments: argparse.Namespace, tokens: bool = False) -> FlowMo:
    """Return the model of ``--model``; see :func:`load_models`."""
    return load_models(arguments, [arguments.model], tokens)[0]


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
    """Print :func:`size_warning`, where there is one."""
    if (warning := size_warning(size, config)) is not None:
        print(warning, file=sys.stderr)


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
