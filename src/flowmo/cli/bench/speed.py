"""``flowmo bench encode`` and ``decode``: images per second, seconds per decoder pass and peak memory of a model on
this machine. Decoding is measured for several numbers of steps without guidance, then with the model's own settings;
then each part of what makes the sampler fast, beside a plain one, in the paper's guided steps, as many as the most of
--steps. Times are medians after a warm-up; nothing else should run meanwhile."""

from __future__ import annotations

import argparse
from dataclasses import asdict, replace
from typing import Any

import torch

from ...config import SamplerConfig, to_dict
from ...devices import usable_device
from ...experiments.sampler_ablation import measure_sampler_ablation, with_utilisation
from ...flow import function_evaluations
from ...profiling.speed import Timing, time_decode, time_encode
from ...provenance import machine
from ...tokenizer import FlowMo
from ..common import add_model_arguments
from ..fields import add_flag
from ..models import coded_size
from ..printing import Progress, number, print_table
from ..values import positive, size, steps
from . import shared


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_flag(parser, "--batch-size", positive, "pictures at a time", 8)
    parser.add_argument("--dtype", choices=("fp32", "bf16"), default="fp32", help="precision of the weights")
    add_flag(parser, "--steps", steps, "numbers of steps to decode with", [1, 2, 4, 8, 25])
    add_flag(parser, "--repeats", positive, "runs of each", 3)
    add_flag(parser, "--size", size, "of the pictures (default: the model's own)")
    shared.add_arguments(parser)
    add_model_arguments(parser)


def run(arguments: argparse.Namespace) -> int:
    a = arguments
    shared.check_out(a)
    device = usable_device(a.device)
    model, weights = shared.load_any(a, device)
    size = coded_size(a, model.config)
    facts = machine(device)
    images = torch.rand(a.batch_size, 3, *size, generator=torch.Generator().manual_seed(0)) * 2 - 1
    sampler = model.config.sampler
    plans = [(n, 1.0) for n in a.steps] + [(sampler.num_steps, sampler.guidance_scale)]
    plans = list(dict.fromkeys(plans))
    timings: list[Timing] = []
    progress = Progress(len(plans) if a.what == "decode" else 1, "rows")
    if a.what == "encode":
        timings.append(time_encode(model, images, a.dtype, a.repeats))
    else:
        for timing in time_decode(model, images, plans, a.dtype, a.repeats):
            timings.append(timing)
            progress.advance()
    progress.finish()
    if not a.json:
        print(
            f"{a.model} ({weights}), {a.what}, {size[0]}x{size[1]}, batches of {a.batch_size}, {a.dtype}, "
            f"{facts.get('gpu', facts['cpu'])}, {facts['threads']} threads, torch {facts['torch']}"
        )
        _print(timings)
    content = {
        "what": a.what,
        "model": a.model,
        "weights": weights,
        "image_size": list(size),
        "batch_size": a.batch_size,
        "dtype": a.dtype,
        "repeats": a.repeats,
        "sampler": to_dict(sampler),
        "machine": facts,
        "rows": [asdict(timing) for timing in timings],
    }
    if a.what == "decode":
        content["sampler_ablation"] = _sampler_ablation(a, model, images)
    return shared.finish(a, content)


def _sampler_ablation(arguments: argparse.Namespace, model: FlowMo, images: torch.Tensor) -> dict[str, Any]:
    sampler = replace(SamplerConfig(), num_steps=max(arguments.steps))
    found = measure_sampler_ablation(model, images, sampler, arguments.dtype, arguments.repeats)
    rows = with_utilisation(found, model, (images.shape[2], images.shape[3]), sampler, arguments.dtype)
    if not arguments.json:
        count = function_evaluations(sampler)
        print(f"\n{sampler.num_steps} steps, guidance {sampler.guidance_scale:g}, {count} passes:")
        formats = {"seconds_per_pass": ".4f", "images_per_second": ".2f", "ratio": ".2f", "difference": ".1g"}
        formats["utilisation"] = ".1%"
        table = [[row["name"], *(number(row.get(key), spec) for key, spec in formats.items())] for row in rows]
        print_table(["", "s/pass", "images/s", "times plain", "difference", "utilisation"], table)
    return {"sampler": to_dict(sampler), "rows": rows}


def _print(timings: list[Timing]) -> None:
    rows = []
    for t in timings:
        what = t.what if t.num_steps is None else f"{t.num_steps} step{'s' if t.num_steps > 1 else ''}"
        settings = [number(t.guidance_scale, "g"), number(t.decoder_passes, "d")]
        speed = [f"{t.images_per_second:.2f}", f"{t.seconds:.4f}", number(t.seconds_per_decoder_pass, ".4f")]
        rows.append([what, *settings, *speed, number(t.peak_memory_mb, ".0f")])
    print_table(["", "guidance", "passes", "images/s", "s/batch", "s/pass", "peak MiB"], rows)
