"""``flowmo bench encode`` and ``decode``: images per second, seconds per decoder pass and peak memory of a model on
this machine. Decoding is measured for several numbers of steps without guidance, then with the model's own settings;
then each part of what makes the sampler fast, beside a plain one, in the paper's guided steps, as many as the most of
--steps. Times are medians after a warm-up; nothing else should run meanwhile."""

from __future__ import annotations

import argparse
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch

from ...config import SamplerConfig, to_dict
from ...errors import WeightsError
from ...experiments.sampler_ablation import Ablation, measure_sampler_ablation
from ...flow import function_evaluations
from ...presets import PRESETS, at_size
from ...profiling.flops import flops_per_image, matrix_ceiling
from ...profiling.speed import Timing, time_decode, time_encode
from ...provenance import code_version, machine
from ...tokenizer import FlowMo
from ...weights.load import packaged_path
from .. import common
from . import result


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--batch-size", type=common.positive, default=8, metavar="N", help="pictures at a time (default: 8)"
    )
    parser.add_argument("--dtype", choices=("fp32", "bf16"), default="fp32", help="precision of the weights")
    parser.add_argument(
        "--steps",
        type=common.steps,
        nargs="+",
        default=[1, 2, 4, 8, 25],
        metavar="N",
        help="numbers of steps to decode with (default: 1 2 4 8 25)",
    )
    parser.add_argument("--repeats", type=common.positive, default=3, metavar="N", help="runs of each (default: 3)")
    parser.add_argument("--size", type=common.size, metavar="HxW", help="of the pictures (default: the model's own)")
    result.add_arguments(parser)
    common.add_model_arguments(parser)


def run(arguments: argparse.Namespace) -> int:
    result.check_out(arguments)
    model, weights = _model(arguments)
    device = common.find_device(arguments.device)
    size = common.coded_size(arguments, model.config)
    facts = machine(device)
    images = torch.rand(arguments.batch_size, 3, *size, generator=torch.Generator().manual_seed(0)) * 2 - 1
    sampler = model.config.sampler
    plans = [(n, 1.0) for n in arguments.steps] + [(sampler.num_steps, sampler.guidance_scale)]
    plans = list(dict.fromkeys(plans))
    timings: list[Timing] = []
    progress = common.Progress(len(plans) if arguments.what == "decode" else 1, "rows")
    if arguments.what == "encode":
        timings.append(time_encode(model, images, arguments.dtype, arguments.repeats))
    else:
        for timing in time_decode(model, images, plans, arguments.dtype, arguments.repeats):
            timings.append(timing)
            progress.advance()
    progress.finish()
    if not arguments.json:
        print(
            f"{arguments.model} ({weights}), {arguments.what}, {size[0]}x{size[1]}, batches of {arguments.batch_size}, "
            f"{arguments.dtype}, {facts.get('gpu', facts['cpu'])}, {facts['threads']} threads, torch {facts['torch']}"
        )
        _print(timings)
    content = {
        "what": arguments.what,
        "model": arguments.model,
        "weights": weights,
        "image_size": list(size),
        "batch_size": arguments.batch_size,
        "dtype": arguments.dtype,
        "repeats": arguments.repeats,
        "sampler": to_dict(sampler),
        "machine": facts,
        "rows": [asdict(timing) for timing in timings],
        "code": code_version(),
    }
    if arguments.what == "decode":
        content |= _sampler_ablation(arguments, model, images)
    return result.finish(arguments, content)


def _sampler_ablation(arguments: argparse.Namespace, model: FlowMo, images: torch.Tensor) -> dict[str, Any]:
    sampler = replace(SamplerConfig(), num_steps=max(arguments.steps))
    found = measure_sampler_ablation(model, images, sampler, arguments.dtype, arguments.repeats)
    height, width = images.shape[2:]
    content: dict[str, Any] = {
        "sampler_ablation": {"sampler": to_dict(sampler), "rows": [asdict(one) for one in found]}
    }
    if height == width:
        flops = flops_per_image(at_size(model.config, height), None).decoder * function_evaluations(sampler)
        for row in content["sampler_ablation"]["rows"]:
            half = arguments.dtype == "bf16" or "bf16" in row["name"]
            row["utilisation"] = (
                flops
                * row["images_per_second"]
                / matrix_ceiling(model.device, torch.bfloat16 if half else torch.float32)
            )
    if not arguments.json:
        print(
            f"\n{sampler.num_steps} steps, guidance {sampler.guidance_scale:g}, {function_evaluations(sampler)} passes:"
        )
        _print_sampler_ablation(found, content["sampler_ablation"]["rows"])
    return content


def _model(arguments: argparse.Namespace) -> tuple[FlowMo, str]:
    """The model, or one with random weights for the name of a preset: the speed is the same."""
    if arguments.model in PRESETS and not Path(arguments.model).exists():
        try:
            packaged_path(arguments.model)
        except WeightsError:
            device = common.find_device(arguments.device)
            with device:
                model = FlowMo(PRESETS[arguments.model]())
            model.require_tokens()
            return model.to(device).eval(), "random weights"
    return common.load_tokenizer(arguments), "its weights"


def _print(timings: list[Timing]) -> None:
    header = ["", "guidance", "passes", "images/s", "s/batch", "s/pass", "peak MiB"]
    rows = []
    for t in timings:
        rows.append(
            [
                t.what if t.num_steps is None else f"{t.num_steps} step{'s' if t.num_steps > 1 else ''}",
                _or_dash(t.guidance_scale, "g"),
                _or_dash(t.decoder_passes, "d"),
                f"{t.images_per_second:.2f}",
                f"{t.seconds:.4f}",
                _or_dash(t.seconds_per_decoder_pass, ".4f"),
                _or_dash(t.peak_memory_mb, ".0f"),
            ]
        )
    common.print_table(header, rows)


def _print_sampler_ablation(found: list[Ablation], rows: list[dict[str, Any]]) -> None:
    header = ["", "s/pass", "images/s", "times plain", "difference", "utilisation"]
    table = [
        [
            ablation.name,
            f"{ablation.seconds_per_pass:.4f}",
            f"{ablation.images_per_second:.2f}",
            f"{ablation.ratio:.2f}",
            f"{ablation.difference:.1g}",
            _or_dash(row.get("utilisation"), ".1%"),
        ]
        for ablation, row in zip(found, rows, strict=True)
    ]
    common.print_table(header, table)


def _or_dash(value: Any, spec: str) -> str:
    return "-" if value is None else format(value, spec)
