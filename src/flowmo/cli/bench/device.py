"""``flowmo bench device``: whether this device computes what a CPU computes in float32, in each precision, eager and
compiled, sampling and training; its ceilings of matrix products; and attention by each kernel. The exit code is 1 where
something is not right. Nothing else should run meanwhile."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import torch

from ... import samples
from ...errors import WeightsError
from ...image_utils import as_images
from ...presets import PRESETS, preset
from ...profiling.agreement import Agreement, agreements
from ...profiling.attention import Kernel, attention_kernels
from ...profiling.flops import matrix_ceiling
from ...provenance import code_version, machine
from ...tokenizer import FlowMo
from ...weights.load import packaged_path
from .. import common
from . import result


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", default=common.PACKAGED, metavar="MODEL", help=common.MODEL_HELP)
    parser.add_argument("--shape", default="flowmo-lo", metavar="PRESET", help="whose attention (default: flowmo-lo)")
    parser.add_argument("--batch-size", type=common.positive, default=8, metavar="N", help="images (default: 8)")
    parser.add_argument("--repeats", type=common.positive, default=5, metavar="N", help="runs of each (default: 5)")
    parser.add_argument(
        "--backend", metavar="NAME", help="of torch.compile (default: its own, with CUDA graphs on a GPU)"
    )
    parser.add_argument("--skip-attention", action="store_true", help="compare alone")
    result.add_arguments(parser)
    common.add_device_argument(parser)


def run(arguments: argparse.Namespace) -> int:
    result.check_out(arguments)
    shape = preset(arguments.shape)
    device = common.find_device(arguments.device)
    model = _model(arguments.model)
    model.require_tokens()
    pictures = [samples.paths()[i % len(samples.paths())] for i in range(arguments.batch_size)]
    images = as_images(pictures, model.config.image_size)
    compilers: dict[str, bool | str] = {"eager": False, "compiled": arguments.backend or True}
    facts = machine(device)
    ceilings = {str(d).removeprefix("torch."): matrix_ceiling(device, d) for d in (torch.float32, torch.bfloat16)}
    found = list(agreements(model, images, device, compilers))
    kernels: list[Kernel] = []
    if not arguments.skip_attention:
        kernels = list(attention_kernels(shape, arguments.batch_size, device, arguments.repeats))
    content: dict[str, Any] = {
        "what": "device",
        "model": arguments.model,
        "shape": arguments.shape,
        "batch_size": arguments.batch_size,
        "machine": facts,
        "ceiling_flops": ceilings,
        "agreements": [one._asdict() for one in found],
        "attention": [one._asdict() for one in kernels],
        "code": code_version(),
    }
    if not arguments.json:
        _print(facts, ceilings, found, kernels)
    return result.finish(arguments, content) or (0 if all(one.good for one in found) else 1)


def _model(name: str) -> FlowMo:
    """Return a model on the CPU: of a preset without weights of its own one with random weights."""
    if name not in PRESETS or Path(name).exists():
        return common.load_named(None, name)
    try:
        packaged_path(name)
    except WeightsError:
        torch.manual_seed(0)
        return FlowMo(PRESETS[name]()).eval()
    return common.load_named(None, name)


def _print(facts: dict[str, Any], ceilings: dict[str, float], found: list[Agreement], kernels: list[Kernel]) -> None:
    products = ", ".join(f"{name} {value / 1e12:.3g}" for name, value in ceilings.items())
    print(f"{facts.get('gpu', facts['cpu'])}, torch {facts['torch']}; matrix products in TFLOP/s: {products}\n")
    rows = [
        [a.name, *("-" if n is None else f"{n:.2g}" for n in (a.image, a.loss, a.gradient)),
         "-" if a.tokens is None else f"{a.tokens:.1%}", "good" if a.good else "WRONG"]
        for a in found
    ]  # fmt: skip
    common.print_table(["difference from the CPU's float32", "image", "loss", "gradient", "same tokens", ""], rows)
    for a in found:
        if a.why:
            print(f"{a.name}: {a.why}")
    if not kernels:
        return
    print()
    rows = []
    for k in kernels:
        times = ["-" if n is None else f"{1e3 * n:.3f}" for n in (k.forward, k.both)]
        share = "-" if k.flops is None else f"{k.flops / ceilings[k.dtype]:.1%}"
        off = "-" if k.difference is None else f"{k.difference:.1g}"
        rows.append([f"{k.name}, {k.dtype}", *times, share, off])
    common.print_table(["attention", "ms forward", "ms both", "utilisation", "difference"], rows)
