"""Tensors of a checkpoint that a stranger may have written: nothing else, and from files that its manifest lists alone.

torch.distributed.checkpoint pickles its table of contents and, for entries that are no tensors, loads whatever they
hold. Here the table may name nothing but its own parts, an entry that is no tensor is refused before anything is read,
and the tensors come through the bounded reader of ``flowmo.untrusted``.
"""

from __future__ import annotations

import io
import pickle
import re
from collections.abc import Collection
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any, BinaryIO, ClassVar

import torch.distributed.checkpoint as dcp
from torch import Tensor
from torch.distributed.checkpoint.metadata import StorageMeta, TensorStorageMetadata
from torch.distributed.checkpoint.planner import LoadItemType, LoadPlan, LoadPlanner, ReadItem
from torch.futures import Future

from ...errors import TrainingError
from ...untrusted import MAX_PICKLE, load_tensors

TABLE = ".metadata"
DATA_FILE = re.compile(r"__\d+_\d+\.distcp")


class TensorReader(dcp.FileSystemReader):
    """A reader of the tensors of a checkpoint's folder. files: the names that its manifest lists."""

    def __init__(self, path: Path, files: Collection[str]) -> None:
        super().__init__(path)
        self.folder, self.files = path, files

    def read_metadata(self, *args: Any, **kwargs: Any) -> dcp.Metadata:
        metadata = read_table(self.folder, self.files)
        metadata.storage_meta = metadata.storage_meta or StorageMeta()
        metadata.storage_meta.load_id = self.load_id
        return metadata

    def read_data(self, plan: LoadPlan, planner: LoadPlanner) -> Future[None]:
        for item in plan.items:
            if item.type != LoadItemType.TENSOR:
                raise TrainingError(f"{self.folder}: {item.storage_index.fqn} is no tensor")
            info = self.storage_data[item.storage_index]
            with (self.folder / info.relative_path).open("rb") as file:
                tensor = load_tensors(_Part(file, info.offset, info.length))  # type: ignore[arg-type]
            if not isinstance(tensor, Tensor):
                raise TrainingError(f"{self.folder}: {item.storage_index.fqn} is no tensor")
            for axis, (first, length) in enumerate(zip(item.storage_offsets, item.lengths, strict=True)):
                tensor = tensor.narrow(axis, first, length)
            target = planner.resolve_tensor(item).detach()
            if target.size() != tensor.size():
                raise TrainingError(f"{self.folder}: {item.storage_index.fqn} has another shape than it says")
            target.copy_(tensor)
            planner.commit_tensor(item, target)
        done: Future[None] = Future()
        done.set_result(None)
        return done


class TensorPlanner(dcp.DefaultLoadPlanner):
    """A plan of reading that takes tensors and refuses everything else, which PyTorch's own would load unsafely."""

    def load_bytes(self, read_item: ReadItem, value: io.BytesIO) -> None:
        raise TrainingError(f"{read_item.storage_index.fqn} is no tensor")


def read_table(folder: Path, files: Collection[str]) -> dcp.Metadata:
    """Return the table of contents, of which every entry is a tensor inside a file that ``files`` lists.

    Raises TrainingError for any other table, UnpicklingError for a pickle of anything else.
    """
    path = folder / TABLE
    if not path.is_file() or path.stat().st_size > MAX_PICKLE:
        raise TrainingError(f"{path} is missing, or too large for a table of contents")
    metadata = _Unpickler(io.BytesIO(path.read_bytes())).load()
    if not isinstance(metadata, dcp.Metadata):
        raise pickle.UnpicklingError("its table of contents is of another kind")
    entries, places = metadata.state_dict_metadata, metadata.storage_data
    if not isinstance(entries, dict) or not isinstance(places, dict):
        raise pickle.UnpicklingError("its table of contents is of another kind")
    pieces = 0
    for name, entry in entries.items():
        if not isinstance(name, str) or not isinstance(entry, TensorStorageMetadata):
            raise pickle.UnpicklingError(f"{name} is no tensor")
        pieces += len(entry.chunks)
    if pieces > len(places):
        raise pickle.UnpicklingError("it cuts its tensors into more pieces than it stores")
    sizes = {name: (folder / name).stat().st_size for name in files if DATA_FILE.fullmatch(name)}
    for place in places.values():
        size = sizes.get(place.relative_path)
        if size is None:
            raise pickle.UnpicklingError(f"it reads from {place.relative_path!r}, which its manifest does not list")
        whole = isinstance(place.offset, int) and isinstance(place.length, int)
        if not whole or place.offset < 0 or place.length < 0 or place.offset + place.length > size:
            raise pickle.UnpicklingError(f"it reads beyond the end of {place.relative_path}")
        if getattr(place, "transform_descriptors", None):
            raise pickle.UnpicklingError("its tensors are transformed, which ours never are")
    metadata.planner_data = None  # for nested states alone, which ours is not
    return metadata


class _Unpickler(pickle._Unpickler):
    """Python's own, whose memory is bounded by the pickle's length; that in C believes the numbers in it."""

    ALLOWED = frozenset(
        {
            *(f"torch.distributed.checkpoint.metadata.{n}" for n in (
                "Metadata", "TensorStorageMetadata", "TensorProperties", "ChunkStorageMetadata", "MetadataIndex",
                "StorageMeta", "_MEM_FORMAT_ENCODING",
            )),
            "torch.distributed.checkpoint.filesystem._StorageInfo",
            "torch.distributed.checkpoint.filesystem.StorageMeta",
            "torch.Size", "torch.float32", "torch.float64", "torch.bfloat16", "torch.float16", "torch.int64",
            "torch.serialization._get_layout", "torch.storage._get_dtype_from_pickle_storage_type",
            "collections.OrderedDict",
        }
    )  # fmt: skip
    PATHS: ClassVar = {"PosixPath": PurePosixPath, "WindowsPath": PureWindowsPath}
    """The folder that a checkpoint was written to, of any system: such a path opens nothing and can be made on both."""

    MOST_NESTED = 100
    dispatch: ClassVar = dict(pickle._Unpickler.dispatch)  # what is done for each byte of the pickle

    def load_mark(self: Any) -> None:
        if len(self.metastack) > self.MOST_NESTED:  # each takes a list
            raise pickle.UnpicklingError("its table of contents is nested too deeply")
        pickle._Unpickler.load_mark(self)  # type: ignore[attr-defined]

    dispatch[pickle.MARK[0]] = load_mark

    def find_class(self, module: str, name: str) -> Any:
        if module in ("pathlib", "pathlib._local") and name in self.PATHS:
            return self.PATHS[name]
        if f"{module}.{name}" not in self.ALLOWED:
            raise pickle.UnpicklingError(f"its table of contents asks for {module}.{name}")
        return super().find_class(module, name)


class _Part(io.RawIOBase):
    """``length`` bytes of an open file from ``offset`` on, as a file of their own."""

    def __init__(self, file: BinaryIO, offset: int, length: int) -> None:
        self.file, self.offset, self.length, self.place = file, offset, length, 0

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer).cast("B")[: max(0, self.length - self.place)]
        self.file.seek(self.offset + self.place)
        count = self.file.readinto(view)  # type: ignore[attr-defined]
        self.place += count
        return int(count)

    def seek(self, offset: int, whence: int = 0) -> int:
        self.place = max(0, offset + (0, self.place, self.length)[whence])
        return self.place

    def tell(self) -> int:
        return self.place

    def seekable(self) -> bool:
        return True

    def readable(self) -> bool:
        return True
