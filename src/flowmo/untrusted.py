"""Files that a stranger may have written: tensors out of them without executing, hanging or claiming memory.

A pickle is read by PyTorch's weights-only reader, which makes tensors and plain containers alone. What that reader does
not bound is bounded here: how large an archive may become when it is unpacked, and how long a pickle may be.
"""

from __future__ import annotations

import io
import json
import os
import re
import zipfile
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from safetensors import SafetensorError, safe_open

from .errors import WeightsError

MAX_PICKLE = 2**24
"""Bytes of a pickle, without the tensors' values. The largest released checkpoint's has 0.2 MB."""
MAX_HEADER = 2**24
"""Bytes of the header of weights: names, shapes and what is known of the training."""
MAX_UNPACKED, MAX_SHRUNK = 2**28, 50
"""Bytes that arrays may have when they are unpacked, however small their file is; and how often its size beyond."""
KINDS = ("F16", "BF16", "F32", "F64")
MAX_READS = 2**22
"""Pieces that a pickle outside an archive is read in; each may become an object of a hundred bytes."""


def check_regular(path: Path, what: str = "weights") -> None:
    """Raise WeightsError for a file that is missing, may not be read, or is a folder, a pipe or a device.

    All of them would be an error later, or would never end.
    """
    if not path.exists():
        raise WeightsError(f"no {what} at {path}; give a file of {what}, or a folder that has one")
    if not path.is_file():
        raise WeightsError(f"{path} is no plain file; give a file of {what}")
    try:
        path.open("rb").close()
    except OSError as error:
        raise WeightsError(f"{path} cannot be opened ({error.strerror or error}); check its permissions") from None


def load_tensors(source: Path | BinaryIO, mmap: bool = False) -> Any:
    """Return what a file of ``torch.save`` holds, on the CPU, where that is tensors in plain containers.

    Nothing is executed.

    source: a path, or an open file of which all is read. mmap: leave the values of an archive in the file until used.
    Raises WeightsError with a reason of our own for any other content; PyTorch's advice to load it anyway is not passed
    on.
    """
    if isinstance(source, Path):
        check_regular(source)
        with source.open("rb") as file:
            return _load(file, source if mmap else file)
    return _load(source, source)


def _load(file: BinaryIO, given: Path | BinaryIO) -> Any:
    try:
        if zipfile.is_zipfile(file):
            _check_archive(file)
            file.seek(0)
            return torch.load(given, map_location="cpu", weights_only=True, mmap=isinstance(given, Path))
        file.seek(0)
        return torch.load(_Counted(file), map_location="cpu", weights_only=True)  # type: ignore[arg-type]
    except WeightsError:
        raise
    except RecursionError:
        raise WeightsError("its content is nested too deeply") from None
    except MemoryError:
        raise WeightsError("it asks for more memory than there is") from None
    except Exception as error:  # torch raises many kinds for damaged or unsafe files
        raise WeightsError(_reason(error)) from None


def _check_archive(file: BinaryIO) -> None:
    """Raise WeightsError for an archive whose parts are more, unpacked, than the file has bytes.

    It is raised for one whose pickle alone is too long, too. PyTorch itself packs nothing.
    """
    size = file.seek(0, os.SEEK_END)
    with zipfile.ZipFile(file) as archive:
        parts = archive.infolist()
    if any(part.compress_type != zipfile.ZIP_STORED for part in parts) or sum(p.file_size for p in parts) > size:
        raise WeightsError("its parts are compressed or overlap, which PyTorch's files never are")
    if any(part.file_size > MAX_PICKLE for part in parts if part.filename.endswith(".pkl")):
        raise WeightsError(f"its table of contents has more than {MAX_PICKLE:,} bytes")


def _reason(error: Exception) -> str:
    """Return why a file was refused, in one line without PyTorch's advice.

    The reason is what the pickle asks for, where it asks for more than tensors.
    """
    text = str(error) or type(error).__name__
    for line in text.splitlines():
        for marker in ("Unsupported global: GLOBAL ", "Unsupported class ", "Unsupported operand "):
            if marker in line:
                asked = line.partition(marker)[2].split(" was ")[0].split()[0].rstrip(".,")
                return f"it holds more than tensors ({asked})"
    if "weights_only" in text or "Weights only" in text:
        return "it holds more than tensors"
    return text.splitlines()[0][:200]


@contextmanager
def open_safetensors(path: Path, most: int = MAX_HEADER) -> Iterator[Any]:
    """Give an opened safetensors file of weights inside a block.

    most: bytes of its header. Raises WeightsError, for what is wrong with it inside the block too.
    """
    check_regular(path)
    try:
        with path.open("rb") as raw:
            begin = raw.read(8)
        header = int.from_bytes(begin, "little")
        if len(begin) == 8 and most < header <= path.stat().st_size:
            raise WeightsError(f"{path}: a header of {header:,} bytes is too long for one of weights")
        with safe_open(path, framework="pt") as file:
            yield file
    except (SafetensorError, OSError, OverflowError) as error:
        raise WeightsError(f"{path} is damaged or no safetensors file: {_reason(error)}; give one of weights") from None


def shapes_of(file: Any, path: Path) -> dict[str, tuple[int, ...]]:
    """Return the shapes of the tensors of an open safetensors file, by name, from its header.

    Raises WeightsError unless all are floating-point numbers.
    """
    shapes = {}
    for name in file.keys():  # noqa: SIM118
        part = file.get_slice(name)
        if part.get_dtype() not in KINDS:
            raise WeightsError(
                f"{path}: {name} is of {part.get_dtype()}; weights are floating-point numbers ({', '.join(KINDS)}). "
                "Quantized weights cannot be used: save the model before it was quantized"
            )
        shapes[name] = tuple(part.get_shape())
    return shapes


def finite(tensor: torch.Tensor, name: str, path: Path) -> torch.Tensor:
    """Return a copy of the tensor in float32. Raises WeightsError where it is of another kind or not finite."""
    if not tensor.is_floating_point():
        raise WeightsError(f"{path}: {name} is of {tensor.dtype}; weights are floating-point numbers")
    tensor = tensor.detach().clone().float()
    if not tensor.isfinite().all():
        raise WeightsError(f"{path}: {name} holds values that are not finite, so that every result would be rubbish")
    return tensor


def without_wrappers(name: str) -> str:
    """Return a weight's name without what wrappers put before it.

    That is module. (several GPUs), _orig_mod. (torch.compile) and model. (frameworks).
    """
    return re.sub(r"^(?:(?:module|_orig_mod|model)\.)+", "", name).replace("._orig_mod.", ".")


def load_arrays(path: Path, names: Collection[str] | None = None) -> dict[str, np.ndarray]:
    """Return the arrays of an ``.npz`` file by name, or those of ``names`` that it has; nothing is executed.

    Raises FileNotFoundError, and ValueError for whatever else is wrong, also for arrays that are gigabytes only when
    they are unpacked.
    """
    try:
        if path.exists() and not path.is_file():
            raise ValueError("it is no plain file")
        with zipfile.ZipFile(path) as archive:
            unpacked = sum(part.file_size for part in archive.infolist())
        if unpacked > max(MAX_UNPACKED, MAX_SHRUNK * path.stat().st_size):
            raise ValueError(f"{path.stat().st_size:,} bytes claim to hold {unpacked:,}")
        with np.load(path, allow_pickle=False) as file:
            return {name: file[name] for name in file.files if names is None or name in names}
    except FileNotFoundError:
        raise
    except MemoryError:
        raise ValueError("it asks for more memory than there is") from None
    except Exception as error:  # of damaged archives NumPy and zipfile raise nearly every type there is
        raise ValueError(str(error) or type(error).__name__) from None


def loads(text: str) -> Any:
    """Return the JSON of an untrusted file.

    Raises ValueError, and nothing else, for what is none or is nested too deeply.
    """
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


class _Counted(io.RawIOBase):
    """A file that says so where its pickle is read in more pieces than any of weights has."""

    def __init__(self, file: BinaryIO) -> None:
        self.file, self.left = file, MAX_READS
        here = file.tell()
        self.size = file.seek(0, os.SEEK_END)
        file.seek(here)

    def read(self, size: int = -1) -> bytes:
        self._count()
        return self.file.read(size if size < 0 else min(size, max(0, self.size - self.file.tell())))

    def readline(self, size: int | None = -1) -> bytes:
        self._count()
        return self.file.readline(2**16)

    def readinto(self, buffer: Any) -> int:
        self._count()
        return self.file.readinto(buffer)  # type: ignore[attr-defined, no-any-return]

    def seek(self, offset: int, whence: int = 0) -> int:
        return self.file.seek(offset, whence)

    def tell(self) -> int:
        return self.file.tell()

    def seekable(self) -> bool:
        return True

    def readable(self) -> bool:
        return True

    def _count(self) -> None:
        self.left -= 1
        if self.left < 0:
            raise WeightsError("its table of contents is too long for one of weights")
