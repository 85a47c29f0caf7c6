"""``flowmo bench device``: checks whether this device computes what a CPU computes in float32.

It does so in each precision, eager and compiled, sampling and training, and measures the device's ceilings of matrix
products, and attention by each kernel. The exit code is 1 where something is not right. Nothing else should run
meanwhile.
"""

from __future__ import annotations

import argparse

import torch

from ... import samples
from ...devices import usable_device
from ...image_utils import as_images
from ...presets import preset
from ...profiling.device import check_device
from ...profiling.tables import agreement_table, attention_table
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
    found = check_device(model, images, device, compilers, None if a.skip_attention else shape, a.repeats)
    if not a.json:
        print(f"{found.ceilings_in_words()}\n")
        print_table(*agreement_table(found.agreements))
        print(*(f"{one.name}: {one.why}\n" for one in found.agreements if one.why), sep="", end="")
        if found.kernels:
            print()
            print_table(*attention_table(found.kernels, found.ceilings))
    asked = {"what": "device", "model": a.model, "shape": a.shape, "batch_size": a.batch_size}
    return shared.finish(a, asked | found.content()) or int(not found.good)
