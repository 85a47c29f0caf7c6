"""Stage 2: a generator's weights on disk, as safetensors.

The header has its configuration, the names of its classes and the fingerprint of its tokenizer.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import torch

from ..config import from_json, to_json
from ..devices import put_on
from ..errors import ConfigError, WeightsError
from ..files import replacing, save_tensors, user_path
from ..hub import fetch_from_hub, repository_of
from ..untrusted import finite, loads, open_safetensors, shapes_of, without_wrappers
from .config import GeneratorConfig
from .model import Generator

FORMAT = "flowmo-generator-1"
PACKAGED_GENERATOR = "maskgit-mini"
"""The generator of 100 classes of images of 64 x 64 pixels, over flowmo-mini's tokens of them at 128 x 128."""


def save_generator(
    generator: Generator, path: Path, dtype: torch.dtype = torch.float16, about: dict[str, Any] | None = None
) -> None:
    """Write a generator to ``path``, in half precision unless told otherwise, and rename the file into place.

    about: anything JSON can hold.
    Raises WeightsError for weights that are not finite in ``dtype``.
    """
    tensors = {name: p.detach().to("cpu", dtype).contiguous() for name, p in generator.state_dict().items()}
    bad = [name for name, tensor in tensors.items() if not tensor.isfinite().all()]
    if bad:
        raise WeightsError(f"not saved: {bad[0]} is not finite in {dtype}; look at the training log")
    metadata = {
        "format": FORMAT,
        "config": to_json(generator.config),
        "classes": json.dumps(generator.classes),
        "about": json.dumps(about or {}),
    }
    with replacing(path) as part:
        save_tensors(tensors, part, metadata=metadata)


def packaged_generator_of(fingerprints: Sequence[int], device: str | torch.device = "cpu") -> Generator | None:
    """Return the packaged generator where its tokenizer is among those of these fingerprints, and it is installed."""
    try:
        packaged = load_generator(PACKAGED_GENERATOR, device)
    except WeightsError:
        return None
    return packaged if packaged.config.tokens.fingerprint in [f"{one:08x}" for one in fingerprints] else None


def load_generator(path: str | Path, device: str | torch.device = "cpu", revision: str | None = None) -> Generator:
    """Return a generator written by :func:`save_generator`, in float32 and evaluation mode. Nothing in it is executed.

    path: its file, the folder of a run, ``PACKAGED_GENERATOR``, or ``owner/name`` of the Hugging Face hub.
    revision: a branch, tag or commit of a repository on the hub.
    Raises WeightsError for a missing, damaged or foreign file.
    """
    path = generator_path(path, revision)
    if not path.exists():
        if path.name == "model.safetensors" and any(path.parent.glob("checkpoint-*/checkpoint.json")):
            raise WeightsError(
                f"{path.parent} holds checkpoints and no generator yet, since its run was killed; the run's own "
                "command goes on, and writes one when it ends, at --time-limit, or on Ctrl-C"
            )
        raise WeightsError(f"no generator at {path}; 'flowmo train-generator' makes one")
    with open_safetensors(path) as file:
        config, classes, _ = _header(path, file.metadata() or {})
        if config.depth > len(file.keys()):
            raise WeightsError(f"{path}: its tensors do not fit its own configuration, which has more blocks than they")
        with torch.device("meta"):
            generator = Generator(config, classes)
        expected = {name: tuple(tensor.shape) for name, tensor in generator.state_dict().items()}
        stored = shapes_of(file, path)
        found = {without_wrappers(name): shape for name, shape in stored.items()}
        if found != expected or len(found) != len(stored):
            wrong = sorted(set(expected.items()) ^ set(found.items()))[:3] or "two of one name"
            raise WeightsError(f"{path}: its tensors do not fit its own configuration, for example {wrong}")
        weights = {without_wrappers(name): finite(file.get_tensor(name), name, path) for name in stored}
        generator.load_state_dict(weights, assign=True)
    return put_on(generator, device).eval()


def read_generator_about(path: str | Path) -> tuple[GeneratorConfig, list[str], dict[str, Any]]:
    """Return configuration, names of the classes, and facts about the training, from a generator's header alone.

    Raises WeightsError for a missing, damaged or foreign file.
    """
    path = generator_path(path)
    if not path.exists():
        raise WeightsError(f"no generator at {path}")
    with open_safetensors(path) as file:
        return _header(path, file.metadata() or {})


def is_generator(path: Path) -> bool:
    """Return whether a file holds a generator, by its header alone."""
    try:
        with open_safetensors(path) as file:
            return (file.metadata() or {}).get("format") == FORMAT
    except WeightsError:
        return False


def generator_path(path: str | Path, revision: str | None = None) -> Path:
    """Return the file of the generator that ``path`` means.

    path: the file, the folder of its run, the name of the packaged one, or ``owner/name`` of the hub, from where it is
    fetched. Raises WeightsError where that fails.
    """
    if str(path) == PACKAGED_GENERATOR:
        return Path(str(resources.files("flowmo"))) / "generation" / "packaged" / f"{PACKAGED_GENERATOR}.safetensors"
    repository = repository_of(path) if isinstance(path, str) else None
    if repository is not None:
        return fetch_from_hub(repository, revision=revision)
    path = user_path(path)
    return path / "model.safetensors" if path.is_dir() else path


def _header(path: Path, metadata: dict[str, str]) -> tuple[GeneratorConfig, list[str], dict[str, Any]]:
    if metadata.get("format") != FORMAT:
        raise WeightsError(
            f"{path} is a safetensors file, but not of a generator (format {metadata.get('format')!r}, expected "
            f"{FORMAT!r}); a tokenizer is given to --tokenizer or --model"
        )
    try:
        config = from_json(GeneratorConfig, metadata["config"])
        classes, about = loads(metadata["classes"]), loads(metadata["about"])
        if not isinstance(classes, list) or not all(isinstance(name, str) for name in classes):
            raise ValueError("the names of its classes are not a list of texts")
        if classes and len(classes) != config.num_classes:
            raise ValueError(f"{len(classes)} names for {config.num_classes} classes")
        if not isinstance(about, dict):
            raise ValueError("what it says about the training is no table")
        return config, classes, about
    except (KeyError, ConfigError, ValueError) as error:
        raise WeightsError(f"{path}: its header cannot be read ({error})") from None
