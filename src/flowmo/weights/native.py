"""Our own weight files: safetensors, with the configuration and what is known about the training in the header."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..config import FlowMoConfig, SamplerConfig, from_json, to_json
from ..errors import ConfigError, WeightsError
from ..files import replacing, save_tensors
from ..tokenizer import FlowMo
from ..untrusted import finite, loads, without_wrappers
from .shards import Stored, open_stored, save_shards

FORMAT = "flowmo-weights-1"


def save_model(
    model: FlowMo, path: str | Path, dtype: torch.dtype = torch.float16, about: dict[str, Any] | None = None
) -> None:
    """Write ``model`` to ``path`` (.safetensors), in half precision unless told otherwise.

    about: anything JSON can hold, such as the training configuration; :func:`read_about` returns it.
    Raises WeightsError for weights that are not finite in ``dtype``.
    """
    tensors, metadata = _content(model, dtype, about)
    with replacing(Path(path)) as part:
        save_tensors(tensors, part, metadata=metadata)


def save_model_shards(
    model: FlowMo,
    folder: str | Path,
    dtype: torch.dtype = torch.float16,
    about: dict[str, Any] | None = None,
    most_bytes: int = 15_900_000,
) -> Path:
    """Write the same in several files of at most ``most_bytes`` and their index, which is returned.

    ``load`` takes the folder.
    """
    tensors, metadata = _content(model, dtype, about)
    return save_shards(tensors, Path(folder), metadata, most_bytes)


def load_model(path: str | Path, sampler: SamplerConfig | None = None) -> FlowMo:
    """Read a model, in float32 and evaluation mode.

    It was written by :func:`save_model`, or by :func:`save_model_shards`, and is then read from its index.

    Raises WeightsError for a missing, damaged or foreign file.
    """
    stored = _open(path)
    config = _config(stored)
    if config.encoder.depth + config.decoder.depth > len(stored.shapes):  # before thousands of blocks are built
        raise WeightsError(f"{path}: its tensors do not fit its own configuration, which has more blocks than they")
    with torch.device("meta"):
        model = FlowMo(config if sampler is None else replace(config, sampler=sampler))
    expected = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    shapes = {without_wrappers(name): shape for name, shape in stored.shapes.items()}
    if shapes != expected or len(shapes) != len(stored.shapes):
        wrong = sorted(set(expected.items()) ^ set(shapes.items()))[:3] or "two of one name"
        raise WeightsError(f"{path}: its tensors do not fit its own configuration, for example {wrong}")
    weights = {without_wrappers(name): finite(tensor, name, Path(path)) for name, tensor in stored.tensors()}
    model.load_state_dict(weights, assign=True)
    if config.initial_latent == "zeros":
        model.encoder.initial_latent = torch.zeros(config.num_tokens, config.latent_dim, dtype=torch.float32)
    return model.eval()


def store_sampler(source: str | Path, target: str | Path, sampler: SamplerConfig) -> None:
    """Copy what :func:`save_model` or :func:`save_model_shards` wrote to one file with another stored sampler.

    Every weight keeps its bits and its precision, and what is known about the training stays. ``target`` may be
    ``source``. Raises WeightsError.
    """
    stored = _open(source)
    config = replace(_config(stored), sampler=sampler)
    kept = {name: stored.metadata[name] for name in ("format", "about") if name in stored.metadata}
    tensors = dict(stored.tensors())
    with replacing(Path(target)) as part:
        save_tensors(tensors, part, metadata=kept | {"config": to_json(config)})


def read_about(path: str | Path) -> dict[str, Any]:
    """Return what :func:`save_model` was told about the model, from the file's header alone. Raises WeightsError."""
    try:
        about = loads(_open(path).metadata.get("about", "{}"))
        if not isinstance(about, dict):
            raise ValueError("it is no table")
        return about
    except ValueError as error:
        raise WeightsError(f"{path}: what its header says about the training cannot be read ({error})") from None


def _content(
    model: FlowMo, dtype: torch.dtype, about: dict[str, Any] | None
) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Return the tensors and the header of a model's files."""
    tensors = {name: p.detach().to("cpu", dtype).contiguous() for name, p in model.state_dict().items()}
    bad = [name for name, tensor in tensors.items() if not tensor.isfinite().all()]
    if bad:
        raise WeightsError(
            f"not saved: {bad[0]} is not finite in {dtype}; save in float32, or look at the training log"
        )
    return tensors, {"format": FORMAT, "config": to_json(model.config), "about": json.dumps(about or {})}


def _config(stored: Stored) -> FlowMoConfig:
    try:
        return from_json(FlowMoConfig, stored.metadata["config"])
    except (KeyError, ConfigError) as error:
        raise WeightsError(f"{stored.path}: the configuration in its header cannot be read ({error})") from None


def _open(path: str | Path) -> Stored:
    stored = open_stored(Path(path))
    if stored.metadata.get("format") != FORMAT:
        raise WeightsError(
            f"{path} is a safetensors file, but not one of FlowMo's (format {stored.metadata.get('format')!r}); "
            f"expected {FORMAT!r}"
        )
    return stored
