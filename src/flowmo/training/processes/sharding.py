"""A model cut over the processes by FSDP2: where its parts lie, and in which precision they are gathered."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator, Sequence

import torch
from torch import nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard

from ...arch.block import RMSNorm

BF16 = MixedPrecisionPolicy(torch.bfloat16, torch.float32, cast_forward_inputs=False)
"""Weights cross in bfloat16, gradients in float32. Inputs stay as they are: the rotary table is float32."""


def sharding_mesh(device_type: str, world_size: int, local_sizes: Sequence[int]) -> DeviceMesh:
    """Return the mesh that weights are cut over: all processes, or on several nodes replicas x shards.

    In the latter each node holds the whole model and sends only gradients to the others.

    local_sizes: processes on the node of each process. Nodes of one process or of different numbers are one mesh of
    all. Every process must call it.
    """
    local = local_sizes[0]
    if len(set(local_sizes)) > 1 or world_size % local or not 1 < local < world_size:
        return init_device_mesh(device_type, (world_size,), mesh_dim_names=("shard",))
    return init_device_mesh(device_type, (world_size // local, local), mesh_dim_names=("replicate", "shard"))


def processes_here() -> int:
    """Return how many processes torchrun started on this node; 1 where it does not say."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", "1"))


def shard(step: nn.Module, blocks: Sequence[nn.Module], mesh: DeviceMesh, precision: str) -> None:
    """Cut a model over ``mesh``, block by block, in place; its parameters become DTensors.

    precision: with "bf16", for forward passes under autocast, the weights of blocks are gathered in bfloat16 where
    autocast would cast them itself, so that every product is the same to the bit. What autocast leaves in float32 is
    gathered so: LayerNorm's weights, modulation tables, and whatever lies outside of blocks.
    """
    # Our blocks hand views on and write into none of them.
    warnings.filterwarnings("ignore", "FSDP2-wrapped module .* returned a view tensor")
    policy = BF16 if precision == "bf16" else MixedPrecisionPolicy()
    for block in blocks:
        if precision == "bf16":
            for part in kept_in_float32(block):
                fully_shard(part, mesh=mesh)
        fully_shard(block, mesh=mesh, mp_policy=policy)
    fully_shard(step, mesh=mesh)


def kept_in_float32(block: nn.Module) -> Iterator[nn.Module]:
    """Yield the modules of a block with parameters that autocast does not cast. RMSNorm casts its own."""
    for part in block.modules():
        if not isinstance(part, nn.Linear | RMSNorm) and any(True for _ in part.parameters(recurse=False)):
            yield part
