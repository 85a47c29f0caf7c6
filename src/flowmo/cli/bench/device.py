"""``flowmo bench device``: checks whether this device computes what a CPU computes in float32.

It does so in each precision, eager and compiled, sampling and training, and measures the device's ceilings of matrix
products, and attention by each kernel. The exit code is 1 where something is not right. Nothing else should run
meanwhile.
"""

from __future__ import annotations

import argparse
from typing import Any

import torch

from ... import samples
from ...devices import usable_device
from ...image_utils import as_images
from ...presets import preset
from ...profiling.agreement import agreements
from ...profiling.attention import attention_kernels
from ...profiling.flops import matrix_ceiling
from ...profiling.tables import agreement_table, attention_table
from ...provenance import machine
from ..arguments.common import MODEL_HELP, PACKAGED, add_device_argument
from ..arguments.fields import add_flag
from ..arguments.values import positive
from ..printing import print_table
from . import shared


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", default=PACKAGED, metavar="MODEL", help=MODEL_HELP)
    add_flag(parser, "--shape", str, "whose attention", "flowmo-lo", metavar="PRESET")
    add_flag(parser, "--batch-size", positive, "images", 8)
    add_flag(parser, "--repeats", positive, "runs of each", 5)
    what = "of torch.compile (default: its own, with CUDA graphs on a GPU)"
    parser.add_argument("--backend", metavar="NAME", help=what)
    parser.add_argument("--skip-attention", action="store_true", help="compare alone")
    shared.add_arguments(parser)
    add_device_argument(parser)


def run(arguments: argparse.Namespace) -> int:
    a = arguments
    shared.check_out(a)
    shape = preset(a.shape)
    device = usable_device(a.device)
    model, _ = shared.load_any(a, torch.device("cpu"))
    chosen = [samples.paths()[i % len(samples.paths())] for i in range(a.batch_size)]
    images = as_images(chosen, model.config.image_size)
    compilers: dict[str, bool | str] = {"eager": False, "compiled": a.backend or True}
    facts = machine(device)
    ceilings = {str(d).removeprefix("torch."): matrix_ceiling(device, d) for d in (torch.float32, torch.bfloat16)}
    found = list(agreements(model, images, device, compilers))
    kernels = [] if a.skip_attention else list(attention_kernels(shape, a.batch_size, device, a.repeats))
    content: dict[str, Any] = {
        "what": "device",
        "model": a.model,
        "shape": a.shape,
        "batch_size": a.batch_size,
        "machine": facts,
        "ceiling_flops": ceilings,
        "agreements": [one._asdict() for one in found],
        "attention": [one._asdict() for one in kernels],
    }
    if not a.json:
        products = ", ".join(f"{name} {value / 1e12:.3g}" for name, value in ceilings.items())
        print(f"{facts.get('gpu', facts['cpu'])}, torch {facts['torch']}; matrix products in TFLOP/s: {products}\n")
        print_table(*agreement_table(found))
        print(*(f"{one.name}: {one.why}\n" for one in found if one.why), sep="", end="")
        if kernels:
            print()
            print_table(*attention_table(kernels, ceilings))
    return shared.finish(a, content) or (0 if all(one.good for one in found) else 1)
