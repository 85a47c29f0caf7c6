"""Training is timed on this machine, by whole updates as the loop makes them, and the data loader alone."""

from __future__ import annotations

import gc
import statistics
import time
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import torch

from ..config import FlowMoConfig
from ..data import Batch, BatchLoader, ImageSource
from ..devices import tf32_products
from ..stages.mode_matching import PerceptualDistance
from ..tokenizer import FlowMo
from ..training.configuration.config import TrainConfig
from ..training.loop import Run
from ..training.processes.distributed import World
from ..training.start import TOKENIZER, assemble
from .flops import flops_per_image, matrix_ceiling, precision, synchronize
from .memory import LiveTensors


class Speed(NamedTuple):
    """The speed of updates of one micro-batch in one process."""

    seconds: float  # of an update, the median
    images_per_second: float  # at the median
    memory: int  # bytes of tensors at most, weights, moments and EMA included
    utilisation: float  # the share of the machine's ceiling that the model's operations take (``flops.Flops``)
    utilisation_with_perceptual: float  # the same with d_perc's operations


def measure_updates(
    model: FlowMoConfig,
    train: TrainConfig,
    device: torch.device,
    batch: Batch,
    perceptual: PerceptualDistance | None,
    repeats: int = 5,
) -> Speed:
    """Return the speed of updates of ``train`` on one batch, which is the micro-batch, after two that do not count.

    On a GPU the second of these sees compiled blocks; on a CPU the tensors of the second are counted.
    Raises what the device raises when its memory is too small.
    """
    train = replace(train, batch_size=len(batch), micro_batch=len(batch))
    torch.manual_seed(train.seed)
    stage, ready, state, meter = assemble(FlowMo(model), train, World(device=device), perceptual)
    run = Run(Path(), train, stage, TOKENIZER, ready, state, World(device=device), meter=meter)

    def update() -> float:
        start = time.perf_counter()
        with tf32_products(train.tf32):
            run.update(batch)
        synchronize(device)
        return time.perf_counter() - start

    update()
    live = LiveTensors()
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        update()
    else:
        state.optimizer.zero_grad(set_to_none=True)
        live.track(batch.pixels, *state.tensors().values())
        if isinstance(perceptual, torch.nn.Module):
            live.track(*perceptual.parameters())
        with live:
            update()
    seconds = statistics.median(update() for _ in range(repeats))
    memory = torch.cuda.max_memory_allocated(device) if device.type == "cuda" else live.peak
    rate = len(batch) / seconds
    frozen = train.freeze_encoder_after == 0
    network = train.perceptual_network if perceptual is not None else None
    flops = flops_per_image(model, network, train.perceptual_share, frozen, train.perceptual_crop)
    ceiling = matrix_ceiling(device, precision(train))
    both = flops.training + flops.perceptual
    return Speed(seconds, rate, memory, rate * flops.training / ceiling, rate * both / ceiling)


def release(device: torch.device) -> None:
    """Give back the memory of a measurement that is over, or that found too little."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
    torch.compiler.reset()


def measure_loader(source: ImageSource, train: TrainConfig, size: int, seconds: float = 3.0) -> tuple[float, Batch]:
    """Return the images a second from the data alone, decoded by ``train.workers`` processes, and the first batch.

    The clock starts when the batches that were decoded ahead are gone.
    """
    loader = BatchLoader(source, train.batch_size, size, train.seed, flip=train.flip, workers=train.workers)
    with loader:
        batches = iter(loader)
        first = next(batches)
        for _ in range(2 * train.workers):
            next(batches)
        start, count = time.perf_counter(), 0
        while time.perf_counter() - start < seconds:
            count += len(next(batches))
        return count / (time.perf_counter() - start), first
