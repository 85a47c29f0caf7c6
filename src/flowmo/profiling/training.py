"""What a training takes is measured here where it fits, and estimated for any number of GPUs (Section 4.1, compute)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, NamedTuple, get_args

import torch

from ..config import FlowMoConfig, override, to_dict
from ..data import Batch, ImageSource
from ..devices import available_memory, resident_memory
from ..errors import ConfigError
from ..presets import at_size, preset
from ..provenance import machine
from ..training.configuration.config import TrainConfig
from ..training.configuration.recipes import RECIPES, model_of
from ..training.processes.distributed import Strategy
from ..training.start import crop_size
from .flops import flops_per_image, matrix_ceiling, parameter_count, precision
from .memory import Memory, memory_per_rank, untrained_lpips
from .training_speed import Speed, measure_loader, measure_updates, release

USUAL_PROCESSES = (1, 8)


class Profiled(NamedTuple):
    """What a training takes, here and elsewhere."""

    model: FlowMoConfig  # as the network sees images
    train: TrainConfig  # likewise


def settings_of(
    name: str, recipe: str | None = None, model: Sequence[str] = (), settings: Sequence[str] = ()
) -> Profiled:
    """Return the settings of a training of the preset ``name``, with its crops as images of their own.

    They have the precision that this machine chooses.

    recipe: the name of settings to start from. model, settings: "name=value" of the model and of the training. Raises
    ConfigError.
    """
    train = override(RECIPES[recipe](name) if recipe else TrainConfig(), list(settings))
    config = override(model_of(recipe, preset(name)), list(model))
    seen = at_size(config, crop_size(config, train))
    return Profiled(seen, replace(train, crop_size=None, precision=train.chosen_precision))  # not to be chosen twice


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


class Bench(NamedTuple):
    """Updates of a training and its data loader, measured on this machine."""

    machine: dict[str, Any]  # see ``provenance.machine``
    ceiling: float  # FLOP/s of matrix products
    rate: float  # images a second by the data loader alone
    workers: int  # processes that decode
    repeats: int  # updates timed
    measured: list[Measured]  # one for each way to update

    def content(self) -> dict[str, Any]:
        """Return all of it as JSON data."""
        return {
            "machine": self.machine,
            "ceiling_flops": self.ceiling,
            "loader": {"images_per_second": self.rate, "workers": self.workers},
            "repeats": self.repeats,
            "measured": [m._asdict() | {"speed": m.speed and m.speed._asdict()} for m in self.measured],
        }


def bench(
    profiled: Profiled,
    source: ImageSource,
    device: torch.device,
    sizes: Sequence[int] | None = None,
    compiled: Sequence[bool] | None = None,
    repeats: int = 5,
    on_open: Callable[[int], None] = lambda total: None,
    on_done: Callable[[], None] = lambda: None,
) -> Bench:
    """Measure the data loader, and updates of each size with and without compiled blocks.

    sizes: images of an update; None for those of the settings. compiled: None for as in the settings.
    on_open: told how many measurements there are. on_done: called after each.
    """
    model, train = profiled
    facts, ceiling = machine(device), matrix_ceiling(device, precision(train))
    rate, images = measure_loader(source, train, model.image_size)
    sizes = sizes or [train.batch_size // train.micro_batches(1)]
    ways = [(size, replace(train, compile=choice)) for size in sizes for choice in compiled or (train.compile,)]
    on_open(len(ways))
    found = []
    for size, asked in ways:
        found.append(measured(model, asked, device, images, size, repeats))
        on_done()
    return Bench(facts, ceiling, rate, train.workers, repeats, found)


def estimate(profiled: Profiled, gpus: Sequence[int] | None = None) -> tuple[list[Plan], dict[str, Any]]:
    """Return the plans of a training, see :func:`plans`, and all that is known without a measurement, as JSON data."""
    model, train = profiled
    planned, refused = plans(model, train, gpus)
    content = {"model": to_dict(model), "train": to_dict(train)} | cost(model, train)
    content["estimate"] = [plan._asdict() | {"memory": plan.memory._asdict()} for plan in planned]
    content["cannot_share"] = [{"processes": count, "why": why} for count, why in refused.items()]
    return planned, content


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
    model: FlowMoConfig, train: TrainConfig, device: torch.device, images: Batch, micro_batch: int, repeats: int
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
    chosen = [k % len(images) for k in range(micro_batch)]
    batch = replace(
        images, pixels=images.pixels[chosen].to(device), labels=None,
        indices=[images.indices[k] for k in chosen], names=[images.names[k] for k in chosen],
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
