"""``flowmo bench encode`` and ``decode``: measures the speed and the peak memory of a model on this machine.

It tells images per second and seconds per decoder pass. Decoding is measured for several numbers of steps without
guidance, then with the model's own settings; then each part of what makes the sampler fast, beside a plain one, in the
paper's guided steps, as many as the most of --steps. Times are medians after a warm-up; nothing else should run
meanwhile.
"""

from __future__ import annotations

import argparse
from dataclasses import asdict

import torch

from ...config import to_dict
from ...devices import usable_device
from ...experiments.sampler_ablation import ablation_content, ablation_in_words
from ...profiling.speed import decode_plans, time_verb
from ...profiling.tables import ablation_table, machine_in_words, timing_table
from ...progress import Progress
from ...provenance import machine
from ..arguments.common import add_model_arguments
from ..arguments.fields import add_flag
from ..arguments.models import coded_size
from ..arguments.values import positive, size, steps
from ..printing import print_table
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
    size, facts, sampler = coded_size(a, model.config), machine(device), model.config.sampler
    images = torch.rand(a.batch_size, 3, *size, generator=torch.Generator().manual_seed(0)) * 2 - 1
    plans = decode_plans(a.steps, sampler)
    progress = Progress(len(plans) if a.what == "decode" else 1, "rows")
    timings = time_verb(a.what, model, images, plans, a.dtype, a.repeats, progress.advance)
    progress.finish()
    if not a.json:
        sizes = f"{size[0]}x{size[1]}, batches of {a.batch_size}, {a.dtype}"
        print(f"{a.model} ({weights}), {a.what}, {sizes}, {machine_in_words(facts)}")
        print_table(*timing_table(timings))
    content = {"what": a.what, "model": a.model, "weights": weights, "image_size": list(size)}
    content |= {"batch_size": a.batch_size, "dtype": a.dtype, "repeats": a.repeats, "sampler": to_dict(sampler)}
    content |= {"machine": facts, "rows": [asdict(timing) for timing in timings]}
    if a.what == "decode":
        progress = Progress(0, "batches")
        callbacks = (progress.expect, progress.advance)
        ablation = ablation_content(model, images, max(a.steps), a.dtype, a.repeats, *callbacks)
        progress.finish()
        content["sampler_ablation"] = ablation
        if not a.json:
            print(f"\n{ablation_in_words(ablation)}:")
            print_table(*ablation_table(ablation["rows"]))
    return shared.finish(a, content)
