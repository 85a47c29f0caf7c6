"""Tensors in one safetensors file, or in several with an index that says what is where.

Several are for ways with a limit on a file's size. The layout is Hugging Face's: ``model-00001-of-00004.safetensors``
and so on, and ``model.safetensors.index.json``, which here holds each shard's SHA-256 and what else is in the header of
a single file.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from ..errors import WeightsError
from ..files import replacing, save_tensors
from ..untrusted import MAX_HEADER, check_regular, open_safetensors, shapes_of

INDEX = "model.safetensors.index.json"


@dataclass(frozen=True)
class Stored:
    """The tensors of one safetensors file, or of several with an index, which are read when they are asked for."""

    path: Path  # of the file, or of the index
    metadata: dict[str, str]  # the header's texts
    shapes: dict[str, tuple[int, ...]]  # of the tensors, by name
    files: dict[Path, list[str]]  # each with the names of its tensors

    def tensors(self) -> Iterator[tuple[str, Tensor]]:
        for path, names in self.files.items():
            with open_safetensors(path) as file:
                for name in names:
                    yield name, file.get_tensor(name)


def open_stored(path: Path) -> Stored:
    """Return it where it is a safetensors file, or an index whose shards are all there and whole.

    Raises WeightsError for anything else.
    """
    if path.name.endswith(".index.json"):
        return _open_index(path)
    metadata, shapes = _open_file(path)
    return Stored(path, metadata, shapes, {path: list(shapes)})


def save_shards(tensors: Mapping[str, Tensor], folder: Path, metadata: dict[str, str], most_bytes: int) -> Path:
    """Write shards of at most ``most_bytes`` each, where single tensors allow, and their index, which is returned.

    The index goes first and comes last, so that shards of two models are never taken for one.
    """
    index = folder / INDEX
    index.unlink(missing_ok=True)
    for old in folder.glob("model-*-of-*.safetensors"):
        old.unlink()
    shards: list[dict[str, Tensor]] = [{}]
    size, room = 0, most_bytes - 100_000  # for the header
    for name, tensor in tensors.items():
        if shards[-1] and size + tensor.nbytes > room:
            shards.append({})
            size = 0
        shards[-1][name] = tensor
        size += tensor.nbytes
    digests: dict[str, str] = {}
    where: dict[str, str] = {}
    for number, shard in enumerate(shards, 1):
        path = folder / f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        with replacing(path) as part:
            save_tensors(shard, part, metadata={"format": "pt"})
        digests[path.name] = _digest(path)
        where |= dict.fromkeys(shard, path.name)
    total = {"total_size": sum(tensor.nbytes for tensor in tensors.values())}
    with replacing(index) as part:
        part.write_text(json.dumps({"metadata": total | metadata, "sha256": digests, "weight_map": where}, indent=1))
    return index


def _open_index(path: Path) -> Stored:
    try:
        check_regular(path)
        if path.stat().st_size > MAX_HEADER:
            raise ValueError(f"it has more than {MAX_HEADER:,} bytes")
        content = json.loads(path.read_text(encoding="utf-8"))
        metadata = {str(name): str(value) for name, value in content["metadata"].items()}
        where, digests = dict(content["weight_map"]), dict(content["sha256"])
        names = {str(name) for name in where.values()}
        if names != set(digests) or any(name != Path(name).name or not name.endswith(".safetensors") for name in names):
            raise ValueError("it names shards that it should not, or not all")
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise WeightsError(f"{path} is damaged or no index of FlowMo's weights: {error}") from None
    shapes: dict[str, tuple[int, ...]] = {}
    files: dict[Path, list[str]] = {}
    for name in sorted(names):
        shard = path.parent / name
        if not shard.is_file():
            raise WeightsError(f"{shard} is missing: the weights of {path} lie in {len(names)} files; copy all of them")
        if _digest(shard) != digests[name]:
            raise WeightsError(f"{shard} is damaged, or of other weights than {path}; copy all of them again")
        _, found = _open_file(shard)
        if set(found) != {key for key, file in where.items() if file == name}:
            raise WeightsError(f"{shard} holds other tensors than {path} says; copy all of them again")
        shapes |= found
        files[shard] = list(found)
    return Stored(path, metadata, shapes, files)


def _open_file(path: Path) -> tuple[dict[str, str], dict[str, tuple[int, ...]]]:
    with open_safetensors(path) as file:
        return file.metadata() or {}, shapes_of(file, path)


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
