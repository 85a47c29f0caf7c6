"""What a training takes is measured here where it fits, and estimated for any number of GPUs (Section 4.1, compute)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple, get_args

import torch

from ..config import FlowMoConfig
from ..data import Batch
from ..errors import ConfigError
from ..training.config import TrainConfig
from ..training.distributed import Strategy
from .flops import flops_per_image, parameter_count
from .memory import Memory, memory_per_rank, untrained_lpips
from .training_speed import Speed, available_memory, measure_updates, release, resident_memory

USUAL_PROCESSES = (1, 8)


class Plan(NamedTuple):
    """A way to train on some GPUs, and the memory that it takes on each."""

    processes: int  # how many GPUs
    strategy: Strategy  # how they share the work
    micro_batch: int  # images a pass on one GPU
    micro_batches: int  # passes an update on one GPU
    memory: Memory  # of one GPU


class Measured(NamedTuple):
    """Updates measured on this device."""

    micro_batch: int  # images an update
    compile: bool  # whether blocks are compiled
    estimate: int  # bytes, what :func:`memory_per_rank` says of them
    speed: Speed | None  # None where they take more memory than is free, or than there was
    why: str | None = None  # which of the two it was
    # Bytes by which this process grew, as the system says, to compare with the tensors counted in ``speed.memory``;
    # None where it does not say, or where a GPU holds the tensors.
    process: int | None = None


def cost(model: FlowMoConfig, train: TrainConfig) -> dict[str, Any]:
    """Return the number of parameters, and the floating-point operations of a training image by part."""
    network = train.perceptual_network if train.losses.perceptual else None
    frozen = train.freeze_encoder_after == 0
    flops = flops_per_image(model, network, train.perceptual_share, frozen, train.perceptual_crop)
    return {"parameters": parameter_count(model), "flops_per_image": flops._asdict()}


def plans(
    model: FlowMoConfig, train: TrainConfig, processes: Sequence[int] | None = None
) -> tuple[list[Plan], dict[int, str]]:
    """Return a plan for each number of GPUs and each strategy, and why other numbers cannot share the batch.

    processes: the numbers of GPUs that are asked for. Without them the usual ones are taken, and those that cannot
    share the batch are left out in silence.
    Raises ConfigError where none of those asked for can.
    """
    found: list[Plan] = []
    refused: dict[int, str] = {}
    for count in processes or USUAL_PROCESSES:
        try:
            parts = train.micro_batches(count)
        except ConfigError as error:
            refused[count] = str(error)
            continue
        micro = train.batch_size // (count * parts)
        for strategy in get_args(Strategy)[: 1 if count == 1 else None]:
            memory = memory_per_rank(model, replace(train, strategy=strategy), count)
            found.append(Plan(count, strategy, micro, parts, memory))
    if processes and not found:
        raise ConfigError("; ".join(refused.values()))
    return found, refused if processes else {}


def measured(
    model: FlowMoConfig, train: TrainConfig, device: torch.device, pictures: Batch, micro_batch: int, repeats: int
) -> Measured:
    """Run updates of ``micro_batch`` of these pictures, and return their speed and memory.

    Pictures are taken again and again where there are fewer. d_perc has random weights, since only its cost matters.
    """
    train = replace(train, batch_size=micro_batch, micro_batch=micro_batch)
    estimate = memory_per_rank(model, train, 1, device.type).total
    free = available_memory(device)
    if free is not None and estimate > free:
        return Measured(micro_batch, train.compile, estimate, None, "more than is free")
    before = resident_memory("VmRSS", restart=True) if device.type == "cpu" else None
    chosen = [k % len(pictures) for k in range(micro_batch)]
    batch = replace(
        pictures, pixels=pictures.pixels[chosen].to(device), labels=None,
        indices=[pictures.indices[k] for k in chosen], names=[pictures.names[k] for k in chosen],
    )  # fmt: skip
    network = untrained_lpips(train.perceptual_network).to(device) if train.losses.perceptual else None
    try:
        speed = measure_updates(model, train, device, batch, network, repeats)
    except (torch.OutOfMemoryError, MemoryError):
        return Measured(micro_batch, train.compile, estimate, None, "more than there was")
    finally:
        most = resident_memory("VmHWM")
        release(device)
    grown = None if before is None or most is None else most - before
    return Measured(micro_batch, train.compile, estimate, speed, process=grown)
