"""Checkpoints that are written while training goes on.

The state is copied in main memory, and each process writes its part of the copy in the background.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor

from ..configuration.run_config import RunConfig
from ..optimization.state import TrainState
from ..processes.distributed import World, local
from .checkpoint import content_of, write_checkpoint


@dataclass
class Saver:
    """What writes the checkpoints of one run, one at a time.

    Every process must call each of its methods but ``reports``.
    """

    folder: Path  # of the run
    config: RunConfig  # of the run
    world: World  # its processes
    _beside: World | None = field(default=None, init=False)  # for exchanges in the background
    _meshes: dict[DeviceMesh, DeviceMesh] = field(default_factory=dict, init=False)  # of the GPUs, as on the CPU
    _copies: dict[str, Tensor] = field(default_factory=dict, init=False)  # kept from one checkpoint to the next
    _thread: threading.Thread | None = field(default=None, init=False)  # that writes, while one does
    _failed: BaseException | None = field(default=None, init=False)  # why the last checkpoint could not be written
    _reports: list[dict[str, float]] = field(default_factory=list, init=False)  # see :meth:`reports`

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Finish what is being written, also where training fails; not with other processes, which may be gone."""
        if self.world.size == 1:
            self.join()

    def begin(self, state: TrainState, about: dict[str, Any], meter: dict[str, Tensor]) -> None:
        """Copy the state of this moment and begin to write it.

        Only the copy is waited for, and the checkpoint before where it is not whole yet. Raises TrainingError for that
        one, or for a weight that is not finite.
        """
        asked = time.monotonic()
        self.wait()
        self._beside = self._beside or self.world.beside()
        content = content_of(state, self.config, self.world, about)
        tensors = self.copied(state.tensors())
        meter = {name: tensor.cpu().clone() for name, tensor in meter.items()}
        held = time.monotonic() - asked

        def write() -> None:
            try:
                if self.world.device.type == "cuda":
                    torch.cuda.set_device(self.world.device)
                assert self._beside is not None
                path = write_checkpoint(self.folder, tensors, content, self._beside, meter, self.config.keep)
                size = sum(file.stat().st_size for file in path.iterdir()) if self.world.main else 0
                report = {"images": content["images_seen"], "checkpoint_mb": round(size / 2**20, 3)}
                seconds = {"checkpoint_seconds": time.monotonic() - asked, "checkpoint_wait": held}
                self._reports.append(report | {name: round(value, 3) for name, value in seconds.items()})
            except BaseException as error:  # told where it is waited for
                self._failed = error

        # Where others may have died, an exchange with them must not keep this process from ending.
        self._thread = threading.Thread(target=write, name="checkpoint", daemon=self.world.size > 1)
        self._thread.start()

    def wait(self) -> None:
        """Wait until the last checkpoint is whole. Raises TrainingError where it could not be written."""
        self.join()
        failed, self._failed = self._failed, None
        if failed is not None:
            raise failed

    def join(self) -> None:
        """Wait until nothing is being written."""
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def reports(self) -> Iterator[dict[str, float]]:
        """Yield, once, what each checkpoint took that has become whole, for the log.

        That is its size, the seconds until then, and those of them that training waited.
        """
        while self._reports:
            yield self._reports.pop(0)

    def copied(self, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return copies in main memory of what this process is to write.

        That is its shards, and its share of the tensors that every process has whole.
        """
        found = {}
        shared = shares({n: t.numel() for n, t in tensors.items() if not isinstance(t, DTensor)}, self.world.size)
        for name, tensor in tensors.items():
            if shared.get(name, self.world.rank) != self.world.rank:
                continue
            own = local(tensor.detach())
            copy = self._copies.get(name)
            if copy is None or copy.shape != own.shape:
                pinned = own.device.type == "cuda"
                copy = self._copies[name] = torch.empty(own.shape, dtype=own.dtype, device="cpu", pin_memory=pinned)
            copy.copy_(own, non_blocking=True)
            found[name] = self._as_shard(copy, tensor) if isinstance(tensor, DTensor) else copy
        if self.world.device.type == "cuda":
            torch.cuda.current_stream(self.world.device).synchronize()
        return found

    def _as_shard(self, copy: Tensor, of: DTensor) -> DTensor:
        mesh = of.device_mesh
        if mesh.device_type != "cpu":
            mesh = self._meshes.setdefault(mesh, self._meshes.get(mesh) or DeviceMesh("cpu", mesh.mesh))
        return DTensor.from_local(copy, mesh, of.placements, run_check=False, shape=of.shape, stride=of.stride())


def shares(sizes: dict[str, int], processes: int) -> dict[str, int]:
    """Return which process writes which tensor, of those that all have: about as much each."""
    loads, owners = [0] * processes, {}
    for name in sorted(sizes, key=lambda name: (-sizes[name], name)):
        rank = min(range(processes), key=loads.__getitem__)
        owners[name] = rank
        loads[rank] += sizes[name]
    return owners
