"""Several processes, one run: who this process is, what all agree on, and how a model is spread over them.

Engines are PyTorch's own: ``torchrun`` starts the processes, DDP keeps a whole model in each, FSDP2 shards it.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any, Literal

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DistributedDataParallel
from torch.utils.checkpoint import checkpoint

from ...errors import ConfigError
from .sharding import processes_here, shard, sharding_mesh

Strategy = Literal["ddp", "fsdp"]
EXCHANGE = timedelta(minutes=10)  # longest wait of a step's exchanges: a process that hangs ends the run
PATIENCE = timedelta(hours=4)  # longest wait for what one process does alone: reading, hashing, writing


@dataclass(frozen=True)
class World:
    """The processes of this run, as one of them sees them."""

    rank: int = 0  # of this one
    size: int = 1  # how many there are
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))  # where this one computes
    made: bool = False  # whether the connection between them was made here, and ends here
    group: dist.ProcessGroup | None = None  # through which they agree on what lies in main memory; None: the usual one

    def beside(self) -> World:
        """Return the same processes with exchanges of their own, for a thread in the background. All must call it."""
        if self.size == 1:
            return self
        return replace(self, made=False, group=dist.new_group(backend="gloo", timeout=PATIENCE))

    @classmethod
    def join(cls, device: str = "cpu", timeout: timedelta = EXCHANGE) -> World:
        """Return the world that ``torchrun`` announces in the environment, or one of this process alone without it.

        With "cuda" each process takes the GPU of its local rank. timeout: of the exchanges of a step; those on which
        all wait for one process have PATIENCE. Raises ConfigError for a machine with fewer GPUs.
        """
        size = int(os.environ.get("WORLD_SIZE", "1"))
        if size == 1:
            return cls(device=torch.device(device))
        rank, local = int(os.environ["RANK"]), int(os.environ.get("LOCAL_RANK", "0"))
        here = torch.device(device)
        if here.type == "cuda":
            count = torch.cuda.device_count()
            if local >= count:
                raise ConfigError(
                    f"torchrun started more than {count} processes on a machine with {count} GPUs; give it "
                    f"--nproc-per-node {count}"
                )
            here = torch.device("cuda", local)
            torch.cuda.set_device(here)
        made = not dist.is_initialized()
        if made:
            dist.init_process_group(
                "cpu:gloo,cuda:nccl" if here.type == "cuda" else "gloo",
                store=_store(size),
                rank=rank,
                world_size=size,
                timeout=timeout,
            )
        return replace(cls(rank, size, here).beside(), made=made)

    @property
    def main(self) -> bool:
        """Return whether this process writes the log, the images and the weights."""
        return self.rank == 0

    def largest(self, values: Sequence[float]) -> list[float]:
        """Return, element by element, the largest over all processes: how all take the same decision."""
        if self.size == 1:
            return list(values)
        tensor = torch.tensor(values, dtype=torch.float64)
        dist.all_reduce(tensor, dist.ReduceOp.MAX, group=self.group)
        return tensor.tolist()

    def largest_in_place(self, tensor: Tensor) -> None:
        """Put into a tensor, element by element, the largest over all processes.

        This happens where the tensor lies, so a GPU is not waited for.
        """
        if self.size > 1:
            dist.all_reduce(tensor, dist.ReduceOp.MAX)

    def average(self, tensor: Tensor) -> Tensor:
        """Return the mean over all processes, a new tensor."""
        if self.size == 1:
            return tensor.clone()
        total = tensor.clone()
        dist.all_reduce(total)
        return total / self.size

    def share(self, value: Any) -> Any:
        """Return, in all processes, what the main one has."""
        if self.size == 1:
            return value
        box = [value]
        dist.broadcast_object_list(box, src=0, group=self.group)
        return box[0]

    def gather(self, value: Any) -> list[Any]:
        """Return, in all processes, what every one has, by rank."""
        if self.size == 1:
            return [value]
        values: list[Any] = [None] * self.size
        dist.all_gather_object(values, value, group=self.group)
        return values

    def collect(self, value: Any) -> list[Any] | None:
        """Return, in the main process, what every one has, by rank; None in the others."""
        if self.size == 1:
            return [value]
        values: list[Any] | None = [None] * self.size if self.main else None
        dist.gather_object(value, values, dst=0, group=self.group)
        return values

    def part(self, count: int) -> slice:
        """Return this process's share of ``count`` things in a row."""
        return slice(count * self.rank // self.size, count * (self.rank + 1) // self.size)

    def wait(self) -> None:
        """Wait until all are here, for as long as the main one may work alone."""
        if self.size > 1:
            dist.barrier(group=self.group)

    def __enter__(self) -> World:
        return self

    def __exit__(self, *error: object) -> None:
        self.leave()

    def leave(self) -> None:
        """End the connection, where it was made here."""
        if self.made and dist.is_initialized():
            dist.destroy_process_group()


def _store(size: int) -> dist.Store:
    """Return the store where the processes find one another.

    torchrun's own store outlives a restart, and with it the addresses of processes that died; so each start has names
    of its own there. The count of restarts is that of one machine's torchrun, so several machines need torchrun itself
    to make a new store (docs/TRAINING.md).
    """
    store, *_ = next(dist.rendezvous("env://"))
    if int(os.environ.get("LOCAL_WORLD_SIZE", "0")) == size:
        store = dist.PrefixStore(f"start-{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}", store)
    return store


def blocks(model: nn.Module) -> list[nn.Module]:
    """Return the blocks of a model, which are what its ``nn.ModuleList``s hold.

    They are the unit of sharding, recomputation and compilation.
    """
    return [block for part in model.modules() if isinstance(part, nn.ModuleList) for block in part]


def block_matrices(model: nn.Module) -> dict[str, Tensor]:
    """Return the weights of the linear layers inside the blocks, by name."""
    names = {id(p): name for name, p in model.named_parameters()}
    linears = [part for block in blocks(model) for part in block.modules() if isinstance(part, nn.Linear)]
    return {names[id(part.weight)]: part.weight for part in linears}


def recomputed(forward: Callable[..., Any]) -> Callable[..., Any]:
    """Return a forward pass whose inner tensors are computed again in the backward pass.

    A function, not a ``functools.partial``: through one of those the compiler compiles nothing, and does not say so.
    """

    def again(*args: Any, **kwargs: Any) -> Any:
        return checkpoint(forward, *args, use_reentrant=False, preserve_rng_state=False, **kwargs)

    return again


def spread(
    step: nn.Module,
    world: World,
    strategy: Strategy = "ddp",
    recompute: bool | float = False,
    compile_blocks: bool = False,
    precision: str = "fp32",
) -> nn.Module:
    """Return ``step`` ready to run: replicated (DDP) or sharded (FSDP2) over the world, on several nodes within each.

    Its blocks are recomputed in the backward pass, all or the share ``recompute`` of them, and compiled if asked for.
    The first blocks are those recomputed, rounded up: their backward pass comes last, when the tensors of the others
    are gone, and the encoder's cost nothing more once it is frozen. What is compiled is the forward pass of
    the recomputed block, so that both hold, and what gathers its weights stays outside. Parameters keep their names;
    sharded ones become DTensors, so optimizers and EMA are made after this.
    precision: of the forward pass under FSDP2, see ``sharding.shard``.
    """
    every = blocks(step)
    for place, block in enumerate(every):
        if place < round(recompute * len(every), 6):
            block.forward = recomputed(block.forward)  # type: ignore[method-assign]
        if compile_blocks:
            block.forward = torch.compile(block.forward)  # type: ignore[method-assign]
    if world.size == 1:
        return step
    if strategy == "fsdp":
        mesh = sharding_mesh(world.device.type, world.size, world.gather(processes_here()))
        shard(step, every, mesh, precision)
        return step
    for parameter in step.parameters():  # there from the beginning, so that DDP makes them views of its buckets
        if parameter.requires_grad:
            parameter.grad = torch.zeros_like(parameter)
    return DistributedDataParallel(
        step, device_ids=[world.device] if world.device.type == "cuda" else None, gradient_as_bucket_view=True
    )


def clear_gradients(ready: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Begin an update without gradients.

    DDP's are views of the buckets that it sends, and set to zero where they lie: without them, the micro-batches that
    send nothing would add theirs up in a second copy of all.
    """
    optimizer.zero_grad(set_to_none=not isinstance(ready, DistributedDataParallel))


@contextlib.contextmanager
def gradients_exchanged(ready: nn.Module, exchange: bool) -> Iterator[None]:
    """Set whether the backward pass in here sends gradients around; only an update's last micro-batch needs to."""
    if isinstance(ready, FSDPModule):
        ready.set_requires_gradient_sync(exchange)
        yield
    elif isinstance(ready, DistributedDataParallel) and not exchange:
        with ready.no_sync():
            yield
    else:
        yield


def local(tensor: Tensor) -> Tensor:
    """Return this process's shard of a sharded tensor; any other tensor itself."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def whole(tensor: Tensor) -> Tensor:
    """Return all of a sharded tensor; every process must ask for it."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def norms(tensors: Sequence[Tensor]) -> list[Tensor]:
    """Return the Frobenius norm of each tensor, also of sharded ones, with one exchange for all of them."""
    if not tensors:
        return []
    own = torch._foreach_norm([local(tensor) for tensor in tensors])
    if not isinstance(tensors[0], DTensor):
        return list(own)
    squares = torch.stack(own).square()
    # Replicas hold the same: a sum over all processes would count each shard several times.
    dist.all_reduce(squares, group=tensors[0].device_mesh.get_group(tensors[0].device_mesh.ndim - 1))
    return list(squares.sqrt().unbind())
