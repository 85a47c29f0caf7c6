"""Our own weight files: safetensors, with the configuration and what is known about the training in the header."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from ..config import FlowMoConfig, SamplerConfig, from_json, to_json
from ..errors import ConfigError, WeightsError
from ..files import replacing
from ..tokenizer import FlowMo

FORMAT = "flowmo-weights-1"


def save_model(
    model: FlowMo, path: str | Path, dtype: torch.dtype = torch.float16, about: dict[str, Any] | None = None
) -> None:
    """Write ``model`` to ``path`` (.safetensors), in half precision unless told otherwise.

    about: anything JSON can hold, such as the training configuration; :func:`read_about` returns it.
    Raises WeightsError for weights that are not finite in ``dtype``.
    """
    tensors = {name: p.detach().to("cpu", dtype).contiguous() for name, p in model.state_dict().items()}
    bad = [name for name, tensor in tensors.items() if not tensor.isfinite().all()]
    if bad:
        raise WeightsError(
            f"not saved: {bad[0]} is not finite in {dtype}; save in float32, or look at the training log"
        )
    metadata = {"format": FORMAT, "config": to_json(model.config), "about": json.dumps(about or {})}
    with replacing(Path(path)) as part:
        save_file(tensors, part, metadata=metadata)


def load_model(path: Path, sampler: SamplerConfig | None = None) -> FlowMo:
    """Read a model written by :func:`save_model`, in float32 and evaluation mode.

    Raises WeightsError for a missing, damaged or foreign file.
    """
    config = _config(path, _metadata(path))
    with torch.device("meta"):
        model = FlowMo(config if sampler is None else replace(config, sampler=sampler))
    expected = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    with safe_open(path, framework="pt") as file:
        found = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
        if found != expected:
            wrong = sorted(set(expected.items()) ^ set(found.items()))[:3]
            raise WeightsError(f"{path}: its tensors do not fit its own configuration, for example {wrong}")
        model.load_state_dict({name: file.get_tensor(name).float() for name in found}, assign=True)
    if config.initial_latent == "zeros":
        model.encoder.initial_latent = torch.zeros(config.num_tokens, config.latent_dim)
    return model.eval()


def store_sampler(source: Path, target: Path, sampler: SamplerConfig) -> None:
    """Copy a file written by :func:`save_model` with another stored sampler: every weight keeps its bits and its
    precision, and what is known about the training stays. ``target`` may be ``source``. Raises WeightsError."""
    metadata = _metadata(source)
    config = replace(_config(source, metadata), sampler=sampler)
    with safe_open(source, framework="pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    with replacing(target) as part:
        save_file(tensors, part, metadata=metadata | {"config": to_json(config)})


def read_about(path: Path) -> dict[str, Any]:
    """What :func:`save_model` was told about the model, from the file's header alone. Raises WeightsError."""
    try:
        return json.loads(_metadata(path).get("about", "{}"))
    except (ValueError, RecursionError) as error:
        raise WeightsError(f"{path}: what its header says about the training cannot be read ({error})") from None


def _config(path: Path, metadata: dict[str, str]) -> FlowMoConfig:
    try:
        return from_json(FlowMoConfig, metadata["config"])
    except (KeyError, ConfigError) as error:
        raise WeightsError(f"{path}: the configuration in its header cannot be read ({error})") from None


def _metadata(path: Path) -> dict[str, str]:
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
    except FileNotFoundError:
        raise WeightsError(f"no weights at {path}") from None
    except (SafetensorError, OSError) as error:
        raise WeightsError(f"{path} is damaged or no safetensors file: {error}") from None
    if metadata.get("format") != FORMAT:
        raise WeightsError(
            f"{path} is a safetensors file, but not one of FlowMo's (format {metadata.get('format')!r}); "
            f"expected {FORMAT!r}"
        )
    return metadata
