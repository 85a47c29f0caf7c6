"""The tensors of a TorchScript file are read without running anything of it; no module is built, no code is loaded.

Such a file is a zip archive of a pickle, of the values of its tensors, and of code. The pickle may name modules, which
become empty containers here, and the parts of a tensor; it is refused when it names anything else.
"""

from __future__ import annotations

import io
import math
import pickle
import zipfile
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..errors import WeightsError


def read_tensors(content: bytes) -> dict[str, Tensor]:
    """Return the tensors of the file with these bytes, in float32, named by their path, ``net.layers.conv.weight``.

    They may be stored as float32, float16 or bfloat16.
    Raises WeightsError when it is no TorchScript file, or a damaged one, or asks for more than tensors.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            pickles = [name for name in archive.namelist() if name.count("/") == 1 and name.endswith("/data.pkl")]
            if len(pickles) != 1:
                raise WeightsError("the file of weights is not a TorchScript archive")
            tree = _Unpickler(archive, pickles[0].removesuffix("data.pkl")).load()
    except WeightsError:
        raise
    except Exception as error:  # a broken archive can raise anything
        raise WeightsError(f"the file of weights cannot be read: {error}") from None
    return dict(_named(tree, ""))


class _Module:
    """Holds the attributes of a pickled module."""


class _Unpickler(pickle.Unpickler):
    """An unpickler that knows modules as containers, and tensors."""

    def __init__(self, archive: zipfile.ZipFile, root: str) -> None:
        super().__init__(io.BytesIO(archive.read(root + "data.pkl")))
        self.archive, self.root = archive, root

    def find_class(self, module: str, name: str) -> Any:
        if module.split(".")[0] == "__torch__":
            return _Module
        if (module, name) not in _PARTS:
            raise WeightsError(f"the file of weights asks for {module}.{name}, which tensors do not need: refused")
        return _PARTS[module, name]

    def persistent_load(self, pid: Any) -> np.ndarray:
        """Return the values of a storage, as float32."""
        kind, dtype, key, _, count = pid
        if kind != "storage" or dtype not in _DTYPES or not str(key).isdecimal():
            raise WeightsError(f"the file of weights holds {pid!r} where the values of a tensor should be")
        stored = np.frombuffer(self.archive.read(f"{self.root}data/{key}"), _DTYPES[dtype])
        if dtype == "bfloat16":  # the upper half of a float32
            stored = (stored.astype(np.uint32) << 16).view(np.float32)
        values = stored.astype(np.float32)
        if len(values) != count:
            raise WeightsError(f"the file of weights holds {len(values)} values where {count} should be")
        return values


def _tensor(values: np.ndarray, offset: int, size: tuple[int, ...], stride: tuple[int, ...] = (), *_: Any) -> Tensor:
    size, stride = tuple(size), tuple(stride)
    contiguous = tuple(math.prod(size[i + 1 :]) for i in range(len(size)))
    if any(n > 1 and a != b for n, a, b in zip(size, stride, contiguous, strict=False)):
        raise WeightsError("the file of weights holds a tensor that is not stored in its own order: refused")
    return torch.from_numpy(values[offset : offset + math.prod(size)].astype(np.float32).reshape(size))


_DTYPES = {"float32": "<f4", "float16": "<f2", "bfloat16": "<u2"}
_PARTS: dict[tuple[str, str], Any] = {
    ("torch", "FloatStorage"): "float32",
    ("torch", "HalfStorage"): "float16",
    ("torch", "BFloat16Storage"): "bfloat16",
    ("torch._utils", "_rebuild_tensor_v2"): _tensor,
    ("torch.jit._pickle", "build_intlist"): list,
    ("collections", "OrderedDict"): dict,
}


def _named(node: Any, name: str) -> Iterator[tuple[str, Tensor]]:
    for key, value in vars(node).items():
        if isinstance(value, _Module):
            yield from _named(value, f"{name}{key}.")
        elif isinstance(value, Tensor):
            yield f"{name}{key}", value
