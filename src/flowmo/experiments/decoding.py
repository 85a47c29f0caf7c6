"""The same tokens decoded by several decoders and samplers show what fewer passes cost and gain (Section 4.2; O11).

Their quality stands beside their speed on one machine.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from ..config import SamplerConfig, from_dict
from ..errors import DataError
from ..evaluation.across_seeds import compare_seeds
from ..flow import function_evaluations
from ..provenance import machine, weights_checksum
from ..quantize.tokens import Tokens
from ..tokenizer import FlowMo


def compare_decoding(
    rows: Mapping[str, tuple[FlowMo, Sequence[Path]]], images: Tensor, repeats: int = 5
) -> dict[str, Any]:
    """Return ``compare_seeds`` of decoders of the same tokens, and how fast they are.

    Every model gets ``passes`` of the decoder, ``images_per_second``, and ``speedup``, how many times the first one's.
    rows: by name, the model and its evaluations, one a seed; all are compared with the first.
    images: B 3 H W in [-1, 1], whose tokens are decoded again and again by each, with the sampler of its evaluations.
    repeats: how many times.
    Raises DataError where evaluations do not compare, or are of other weights than the model.
    """
    content = compare_seeds({name: paths for name, (_, paths) in rows.items()}, same="fingerprint")
    tokens = next(iter(rows.values()))[0].tokenize(images)
    work: dict[str, Callable[[], object]] = {}
    for name, (model, _) in rows.items():
        found = content["models"][name]
        if weights_checksum(model) != found["sha256"]:
            raise DataError(f"the evaluations of {name} are of other weights than the model that is given for it")
        if found["sampler"] is None:
            raise DataError(f"the evaluations of {name} name no sampler")
        sampler: SamplerConfig = from_dict(SamplerConfig, found["sampler"])
        found["passes"] = function_evaluations(sampler)
        work[name] = decoding_of(model, tokens, sampler)
    seconds = time_in_turn(work, repeats)
    first = next(iter(seconds.values()))
    for name, times in seconds.items():
        content["models"][name] |= {
            "images_per_second": len(images) / statistics.median(times),
            "speedup": statistics.median(a / b for a, b in zip(first, times, strict=True)),
        }
    device = next(iter(rows.values()))[0].device
    return content | {"speed": {"batch_size": len(images), "repeats": repeats, "machine": machine(device)}}


def decoding_of(model: FlowMo, tokens: Tokens, sampler: SamplerConfig) -> Callable[[], object]:
    """Return a function without arguments that decodes ``tokens`` from end to end, to pictures in the main memory."""
    return lambda: model.detokenize(tokens, **vars(sampler)).cpu()


def time_in_turn(work: Mapping[str, Callable[[], object]], repeats: int) -> dict[str, list[float]]:
    """Return the seconds of each piece of work, one a round; the first round does not count.

    All take their turn in each round, so that what else the machine does falls on all alike, and their ratios within a
    round mean something.
    """
    seconds: dict[str, list[float]] = {name: [] for name in work}
    for _ in range(repeats + 1):
        for name, run in work.items():
            start = time.perf_counter()
            run()
            seconds[name].append(time.perf_counter() - start)
    return {name: times[1:] for name, times in seconds.items()}
