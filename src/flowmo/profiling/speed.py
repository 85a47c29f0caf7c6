"""Encoding and decoding by a model are timed."""

from __future__ import annotations

import contextlib
import copy
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from ..config import SamplerConfig
from ..devices import peak_memory_mb
from ..flow import function_evaluations
from ..presets import PRESETS, preset
from ..tokenizer import FlowMo
from ..weights.load import packaged_names


@dataclass(frozen=True)
class Timing:
    """The speed of encoding, or of decoding in one way."""

    what: str  # "encode", "decode"
    num_steps: int | None  # of the sampler; None for encoding
    guidance_scale: float | None  # of the sampler; None for encoding
    decoder_passes: int | None  # network passes an image takes (guidance doubles some); None for encoding
    seconds: float  # of a batch, the median
    seconds_per_image: float  # at the median
    images_per_second: float  # at the median
    seconds_per_decoder_pass: float | None  # of a batch; None for encoding
    peak_memory_mb: float | None  # see ``devices.peak_memory_mb``; on a CPU it covers everything up to this row


def random_model(name: str, device: torch.device) -> FlowMo | None:
    """Return a model with random weights for the name of a preset that has no packaged ones: its speed is the same.

    None for every other name.
    """
    if name not in PRESETS or Path(name).exists() or name in packaged_names():
        return None
    torch.manual_seed(0)
    with device:
        model = FlowMo(preset(name))
    return model.to(device).eval()


def time_encode(model: FlowMo, images: torch.Tensor, dtype: str = "fp32", repeats: int = 3) -> Timing:
    """Return the time of ``tokenize`` of images B 3 H W in [-1, 1], which may lie on the CPU; moving them counts."""
    model = _in_precision(model, dtype)
    seconds, memory = _median(lambda: model.tokenize(images), model.device, dtype, repeats)
    return _timing("encode", len(images), seconds, memory)


def time_decode(
    model: FlowMo,
    images: torch.Tensor,
    plans: Sequence[tuple[int, float]],
    dtype: str = "fp32",
    repeats: int = 3,
) -> Iterator[Timing]:
    """Yield the time of ``detokenize`` of the tokens of ``images`` for each plan (num_steps, guidance_scale).

    images: B 3 H W in [-1, 1].
    All plans have the model's own rho.
    """
    model, sampler = _in_precision(model, dtype), model.config.sampler
    tokens = model.tokenize(images)
    for num_steps, scale in plans:

        def decode(num_steps: int = num_steps, scale: float = scale) -> object:
            return model.detokenize(tokens, num_steps=num_steps, guidance_scale=scale)

        seconds, memory = _median(decode, model.device, dtype, repeats)
        nfe = function_evaluations(replace(sampler, num_steps=num_steps, guidance_scale=scale))
        yield _timing("decode", len(images), seconds, memory, num_steps, scale, nfe)


def decode_plans(steps: Sequence[int], sampler: SamplerConfig) -> list[tuple[int, float]]:
    """Return plans for :func:`time_decode`: each number of steps without guidance, then the sampler's own settings."""
    return list(dict.fromkeys([*((n, 1.0) for n in steps), (sampler.num_steps, sampler.guidance_scale)]))


def time_verb(
    verb: str,
    model: FlowMo,
    images: torch.Tensor,
    plans: Sequence[tuple[int, float]],
    dtype: str,
    repeats: int,
    advance: Callable[[], None],
) -> list[Timing]:
    """Return the times of "encode", or of "decode" by each plan.

    images: B 3 H W in [-1, 1].
    advance: called after each of them.
    """
    timings = []
    timed = time_decode(model, images, plans, dtype, repeats)
    for timing in [time_encode(model, images, dtype, repeats)] if verb == "encode" else timed:
        timings.append(timing)
        advance()
    return timings


def _timing(
    what: str,
    batch: int,
    seconds: float,
    memory: float | None,
    num_steps: int | None = None,
    scale: float | None = None,
    nfe: int | None = None,
) -> Timing:
    a_pass = seconds / nfe if nfe else None
    return Timing(what, num_steps, scale, nfe, seconds, seconds / batch, batch / seconds, a_pass, memory)


def _median(work: Callable[[], object], device: torch.device, dtype: str, repeats: int) -> tuple[float, float | None]:
    """Return the median seconds of ``work``, after one run that does not count, and the peak memory of all runs."""

    def once() -> float:
        _wait(device)
        start = time.perf_counter()
        work()
        _wait(device)
        return time.perf_counter() - start

    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    with precision(device, dtype):
        once()
        seconds = statistics.median(once() for _ in range(repeats))
    return seconds, peak_memory_mb(device)


def precision(device: torch.device, dtype: str) -> contextlib.AbstractContextManager:
    """Return autocast for "bf16", and a context that does nothing for "fp32"."""
    return torch.autocast(device.type, torch.bfloat16) if dtype == "bf16" else contextlib.nullcontext()


def _in_precision(model: FlowMo, dtype: str) -> FlowMo:
    """Return a copy with weights in bfloat16 for "bf16", since no autocast reaches into the verbs."""
    return copy.deepcopy(model).prepare(dtype=torch.bfloat16) if dtype == "bf16" else model


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
