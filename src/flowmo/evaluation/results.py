"""One JSON a result says what was measured, of which weights, on which pictures, by which code (Section 4).

A number without its conventions is not a result. Two that differ in protocol, sampler, seed, pictures or count do not
compare. The tables of the README are rendered from such files and never typed.
"""

from __future__ import annotations

import hashlib
import json
import math
import platform
import shlex
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import PIL
import safetensors
import torch
from torch import Tensor

from ..config import SamplerConfig, from_dict, to_dict
from ..data import to_uint8
from ..errors import ConfigError, DataError
from ..files import real_path, replacing
from ..image_utils.regular import check_regular
from ..provenance import code_version, machine, weights_checksum
from .measurable import Measurable

FORMAT = "flowmo-result-1"


@dataclass(frozen=True)
class ModelRecord:
    """What a result says of a model."""

    name: str  # as given by the user
    sha256: str  # see :func:`weights_checksum`
    fingerprint: str  # that its token files carry
    parameters: int  # how many it has
    sampler: SamplerConfig | None = None  # the settings it sampled with (E1); None where it sampled nothing


@dataclass(frozen=True)
class DataRecord:
    """What a result says of the pictures that it measured."""

    description: str  # in words
    sha256: str  # see :func:`list_checksum`
    count: int  # of pictures measured
    image_size: tuple[int, int]  # (height, width) in pixels as the model saw them
    split: str | None = None  # of the data set; None where it has none
    skipped: tuple[str, ...] = ()  # those that could not be read, and why


@dataclass(frozen=True)
class Result:
    """A measured result with all that its numbers depend on; format, code and libraries are filled in."""

    kind: str  # "evaluation", "comparison", "figure ..."
    protocol: str  # its name, in words where it has none
    data: DataRecord  # the pictures
    models: tuple[ModelRecord, ...]  # those that were measured
    seed: str  # and how each picture's noise follows from it
    content: dict  # the numbers, plain JSON, with their conventions
    seconds: float  # of work, over all processes and sittings
    command: str = ""  # the command line that measured it
    format: str = FORMAT  # of the file
    code: dict = field(default_factory=code_version)  # the version of the code
    machine: dict = field(default_factory=lambda: machine(torch.device("cpu")))  # what it was measured on
    libraries: dict = field(default_factory=lambda: libraries())  # versions of what computes the numbers


def as_json(result: Result) -> dict[str, Any]:
    """Return a result as JSON data, its content as it is."""
    return to_dict(replace(result, content={})) | {"content": result.content}


def write_result(path: Path, result: Result) -> None:
    """Write a result, all of the file or nothing.

    Absolute paths in the command are cut to their last part.
    Raises ConfigError for content that is not finite plain JSON or makes no sense.
    """
    words = shlex.split(result.command)
    result = replace(result, command=shlex.join(Path(w).name if Path(w).is_absolute() else w for w in words))
    _check(result)
    try:
        text = json.dumps(as_json(result), indent=2, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{path}: not written, its content is not plain JSON: {error}") from None
    with replacing(path) as part:
        part.write_text(text + "\n")


def read_result(path: Path) -> Result:
    """Read what :func:`write_result` wrote.

    Raises DataError for a file that is damaged, foreign or of another version.
    """
    try:
        check_regular(path)
        data = json.loads(path.read_text())
    except FileNotFoundError:
        raise DataError(f"no result at {path}") from None
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{path}: not a result that can be read ({error})") from None
    found = data.get("format") if isinstance(data, dict) else None
    if found != FORMAT:
        raise DataError(f"{path}: its format is {found!r}, but this program reads {FORMAT!r}; measure it again")
    try:
        result: Result = from_dict(Result, data)
        _check(result)
    except ConfigError as error:
        raise DataError(f"{path}: not a whole result: {error}") from None
    return result


def data_name(data: str) -> str:
    """Return what a result calls a data set: no folders of this machine."""
    return data if ":" in data else real_path(data).name


def describe_data(name: str, images: Tensor, split: str | None = None, skipped: Sequence[str] = ()) -> DataRecord:
    """Return what a result says of the pictures that it measured, N 3 H W.

    skipped: those that could not be read, and why.
    """
    size = (images.shape[2], images.shape[3])
    return DataRecord(name, list_checksum(image_checksums(images)), len(images), size, split, tuple(skipped))


def describe_model(model: Measurable, name: str, sampler: SamplerConfig | None = None) -> ModelRecord:
    """Return what a result says of a model.

    name: as given; of a path only the end is kept (no folders of this machine).
    """
    count = sum(p.numel() for p in model.parameters())
    return ModelRecord(short_name(name), weights_checksum(model), f"{model.fingerprint():08x}", count, sampler)


def short_name(name: str) -> str:
    """Return a model's name, or the end of its path.

    ``runs/a/model.safetensors`` is ``a``, and ``x/flowmo_lo.pth`` is ``flowmo_lo.pth``.
    """
    path = Path(name)
    return path.parent.name or path.name if path.name == "model.safetensors" else path.name or name


def model_stem(name: str) -> str:
    """Return :func:`short_name` without the ending of a file of weights, to name other files by."""
    return short_name(name).removesuffix(".safetensors").removesuffix(".pth")


def labels(names: Sequence[str]) -> list[str]:
    """Return short names for a plot, numbered where they are the same."""
    return numbered([short_name(name).removesuffix(".safetensors") for name in names])


def numbered(names: Sequence[str]) -> list[str]:
    """Return the names; those that are the same have their place among all behind them, from 1 on."""
    return [text if names.count(text) == 1 else f"{text} ({i + 1})" for i, text in enumerate(names)]


def image_checksums(images: Tensor) -> list[str]:
    """Return the SHA-256 of the size and 8-bit pixels of each picture as the model saw it.

    images: B 3 H W in [-1, 1], or uint8.
    """
    pixels = images if images.dtype == torch.uint8 else to_uint8(images)
    header = "x".join(map(str, images.shape[1:])).encode()
    return [hashlib.sha256(header + image.contiguous().cpu().numpy().tobytes()).hexdigest() for image in pixels]


def list_checksum(checksums: list[str]) -> str:
    """Return the SHA-256 of a list of pictures by :func:`image_checksums`, their order included."""
    return hashlib.sha256("\n".join(checksums).encode()).hexdigest()


def libraries() -> dict[str, str]:
    """Return the versions of what computes the numbers."""
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "pillow": PIL.__version__,
        "safetensors": safetensors.__version__,
    }


def _check(result: Result) -> None:
    def demand(what: bool, problem: str) -> None:
        if not what:
            raise ConfigError(problem)

    demand(result.data.count >= 1, f"data.count must be at least 1, got {result.data.count}")
    demand(math.isfinite(result.seconds) and result.seconds >= 0, f"seconds must not be negative: {result.seconds}")
    for name, value in [("data", result.data.sha256), *((model.name, model.sha256) for model in result.models)]:
        demand(len(value) == 64 and not set(value) - set("0123456789abcdef"), f"{name}: {value!r} is no SHA-256")
    demand(bool(result.kind and result.protocol), "kind and protocol must be named")
    demand(bool(result.content), "content is empty: nothing was measured")
    demand("flowmo" in result.code, "code must name the version of flowmo")
    demand(_plain(result.content), "content holds what JSON cannot")


def _plain(value: Any) -> bool:
    if isinstance(value, dict):
        return all(isinstance(key, str) and _plain(item) for key, item in value.items())
    if isinstance(value, (list, tuple)):
        return all(map(_plain, value))
    return value is None or isinstance(value, (str, int)) or (isinstance(value, float) and math.isfinite(value))
