"""What a file, a folder or a name is, without running it: a model, a generator, a run, a checkpoint, tokens."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from .codec import HEADER_SIZE, is_shard, read_file, read_shard
from .codec.file import MAGIC
from .config import to_dict
from .errors import ConfigError, TrainingError, WeightsError
from .files import user_path
from .generation import (
    PACKAGED_GENERATOR,
    Generator,
    generator_path,
    is_generator,
    load_generator,
    read_generator_about,
)
from .presets import PRESETS
from .quantize.tokens import Tokens, payload_size
from .tokenizer import FlowMo
from .weights import load, read_about, weights_path
from .weights.describe import describe_config, describe_model, describe_official
from .weights.load import checkpoint_folder, packaged_path

UNREAD = "not read; --verify compares them with their checksums"
"""Said of the tensors of a checkpoint."""


def describe(target: str, load_model: Callable[[str], FlowMo] = load, verify: bool = False) -> dict[str, Any]:
    """Return what the target is, as JSON data. load_model: gives the model of a name or a file.

    verify: read all tensors of checkpoints and generators too, of which the headers alone say what they are.
    Raises ConfigError for one that is not there, WeightsError, TokenFileError or TrainingError for a bad one.
    """
    path = user_path(target)
    if path.is_dir():
        return _run_folder(path, verify)
    if target == PACKAGED_GENERATOR:
        return {"what": "generator", "name": target} | _generator(generator_path(target), verify)
    if path.is_file():
        with path.open("rb") as file:
            begins = file.read(len(MAGIC))
        if begins == MAGIC or path.suffix == ".flowmo":
            read = read_file(path)
            return (
                {"what": ".flowmo file", "file": target, "file_bytes": path.stat().st_size}
                | _tokens(read.tokens, read.fingerprint, read.fit)
                | {"header_bytes": HEADER_SIZE, "original_size": list(read.original_size)}
            )
        if is_shard(path) or path.suffix.lower() == ".shard":
            return {"what": "shard of tokens", "file": target} | _shard(path)
        if is_generator(path):
            return {"what": "generator", "file": target} | _generator(path, verify)
    elif path.suffix in (".flowmo", ".safetensors", ".pth", ".pt") or len(path.parts) > 1:
        raise ConfigError(f"{target}: there is no such file or folder")
    elif target in PRESETS:
        try:
            packaged_path(target)
        except WeightsError as error:
            return {"what": "preset without weights", "note": str(error)} | describe_config(PRESETS[target]())
    model = load_model(str(path) if path.exists() else target)
    content = {"what": "model", "model": target} | describe_model(model)
    if path.suffix in (".pth", ".pt"):
        return content | {"released": describe_official(path)}
    return content | {"about": read_about(path if path.is_file() else packaged_path(target))}


def _run_folder(folder: Path, verify: bool) -> dict[str, Any]:
    from .training.checkpoints.checkpoint import (  # takes seconds, and only folders need it
        checkpoints,
        verify_checkpoint,
    )

    if checkpoint_folder(str(folder)) and not checkpoints(folder):
        return {"what": "checkpoint", "folder": str(folder)} | _checkpoint(folder, verify)
    content: dict[str, Any] = {"what": "folder of a run", "folder": str(folder)}
    weights, found = weights_path(folder), checkpoints(folder)
    if found:
        for path in found[:-1] if verify else []:
            verify_checkpoint(path)
        content |= {"checkpoints": [path.name for path in found], "newest": _checkpoint(found[-1], verify)}
    if is_generator(weights):
        content |= {"generator": str(weights)} | _generator(weights, verify)
    elif weights.is_file():
        content |= {"model": str(weights)} | describe_model(load(weights)) | {"about": read_about(weights)}
    elif not found:
        tokens = next(iter(sorted(folder.glob("*.flowmo"))), None)
        instead = f"name one of its files, such as {tokens}" if tokens else "name a run, a file or a model"
        raise ConfigError(f"{folder} holds neither checkpoints nor model.safetensors; {instead}")
    return content


def _checkpoint(path: Path, verify: bool) -> dict[str, Any]:
    """Return what a checkpoint says of itself, without the checksums; its bytes are read only to be verified."""
    from .training.checkpoints.checkpoint import read_about as read_checkpoint_about
    from .training.checkpoints.checkpoint import verify_checkpoint

    if verify:
        verify_checkpoint(path)
    try:
        about = read_checkpoint_about(path)
    except TrainingError as error:
        return {"note": str(error)}
    content = {name: value for name, value in about.items() if name not in ("format", "files")}
    return content | {"tensors": "as they were written" if verify else UNREAD}


def _generator(path: Path, verify: bool) -> dict[str, Any]:
    if verify:
        load_generator(path)
    config, classes, about = read_generator_about(path)
    with torch.device("meta"):
        parameters = sum(p.numel() for p in Generator(config).parameters())
    return {
        "parameters": parameters,
        "tokenizer": config.tokens.title,
        "sequence_length": config.sequence_length,
        "vocabulary": config.vocabulary,
        "classes": classes or config.num_classes,
        "config": to_dict(config),
        "about": about,
        "tensors": "all finite numbers" if verify else "not read; --verify reads them",
    }


def _shard(path: Path) -> dict[str, Any]:
    shard = read_shard(path)
    content = {"images": len(shard.names), "names": shard.names[:3] + ["..."] * (len(shard.names) > 3)}
    content |= {"tokenizer": shard.tokenizer} if shard.tokenizer else {}
    content |= _tokens(shard.tokens, shard.fingerprint, shard.fit)
    counts = None if shard.labels is None else Counter(shard.labels.tolist())
    return content | {
        "file_bytes": path.stat().st_size,
        "original_sizes": shard.original_sizes is not None,
        "classes": shard.classes,
        "images_per_label": None if counts is None else {str(label): counts[label] for label in sorted(counts)},
    }


def _tokens(tokens: Tokens, fingerprint: int, fit: str) -> dict[str, Any]:
    return {
        "fingerprint": f"{fingerprint:08x}",
        "image_size": list(tokens.image_size),
        "fit": fit,
        "tokens_per_image": tokens.num_tokens,
        "bits_per_token": tokens.bits_per_token,
        "bits_per_group": tokens.bits_per_group,
        "payload_bytes": payload_size(tokens.num_tokens, tokens.bits_per_token),
        "bits_per_pixel": tokens.bits_per_pixel,
    }
