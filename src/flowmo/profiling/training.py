"""What a training takes, as plain records: measured here where it fits, estimated for any number of GPUs (Section 4.1,
compute)."""

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
    """Memory of one of ``processes`` GPUs: ``micro_batches`` of ``micro_batch`` images an update."""

    processes: int
    strategy: Strategy
    micro_batch: int
    micro_batches: int
    memory: Memory


class Measured(NamedTuple):
    """Updates of ``micro_batch`` images on this device. estimate: what :func:`memory_per_rank` says of them, in bytes.
    speed: None where that is more than is free, or more than there was; why: then says which. process: bytes by which
    this process grew, as the system says, to compare with the tensors counted in ``speed.memory``; None where it does
    not say, or where a GPU holds the tensors."""

    micro_batch: int
    compile: bool
    estimate: int
    speed: Speed | None
    why: str | None = None
    process: int | None = None


def cost(model: FlowMoConfig, train: TrainConfig) -> dict[str, Any]:
    """Parameters, and floating-point operations of a training image by part."""
    network = train.perceptual_network if train.losses.perceptual else None
    flops = flops_per_image(model, network, train.perceptual_share, train.freeze_encoder_after == 0)
    return {"parameters": parameter_count(model), "flops_per_image": flops._asdict()}


def plans(
    model: FlowMoConfig, train: TrainConfig, processes: Sequence[int] | None = None
) -> tuple[list[Plan], dict[int, str]]:
    """Return a plan for each number of GPUs and each strategy, and why other numbers cannot share the batch.

    Of the usual numbers, which nobody asked for, those are left out in silence. Raises ConfigError where none of those
    asked for can.
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
    """Updates of ``micro_batch`` of these pictures, again and again where there are fewer, with d_perc of random
    weights: only its cost matters."""
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
