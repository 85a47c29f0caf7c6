"""The tensors of a TorchScript file, read without running anything of it: no module is built and no code is loaded.

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
    """The float32 tensors of the file with these bytes, named by their path: ``net.layers.conv.weight``.

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
        """The values of a storage, float32."""
        kind, dtype, key, _, count = pid
        if kind != "storage" or dtype is not np.float32 or not str(key).isdecimal():
            raise WeightsError(f"the file of weights holds {pid!r} where the values of a tensor should be")
        values = np.frombuffer(self.archive.read(f"{self.root}data/{key}"), "<f4")
        if len(values) != count:
            raise WeightsError(f"the file of weights holds {len(values)} values where {count} should be")
        return values


def _tensor(values: np.ndarray, offset: int, size: tuple[int, ...], *_: Any) -> Tensor:
    """Published tensors are contiguous, so that strides say nothing new."""
    return torch.from_numpy(values[offset : offset + math.prod(size)].astype(np.float32).reshape(size))


_PARTS: dict[tuple[str, str], Any] = {
    ("torch", "FloatStorage"): np.float32,
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
