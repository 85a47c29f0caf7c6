"""``flowmo coordinate-check``: trains a few steps at several widths and shows whether wider layers move farther.

Under muP they do not, so a learning rate found at one width holds at others; under PyTorch's default they do.
"""

from __future__ import annotations

import argparse

from .. import samples
from ..config import override
from ..data import open_split, read_images
from ..devices import usable_device
from ..files import check_targets, write_json
from ..presets import PRESETS, preset
from ..profiling.coordinate_check import NAMES, CheckRequest
from ..progress import Progress
from ..provenance import machine
from ..viewing.coordinate_plot import coordinate_figure
from ..viewing.plots import need_matplotlib, write_plot
from .arguments import common
from .arguments.fields import add_flag, add_settings
from .arguments.values import finite, positive
from .printing import print_json, print_table


def add_arguments(parser: argparse.ArgumentParser) -> None:
    what = "folder of pictures, Parquet files, or .npy (default: the sample pictures)"
    parser.add_argument("data", nargs="?", metavar="DATA", help=what)
    add_flag(parser, "--preset", str, f"the base model, one of {', '.join(PRESETS)}", "tiny")
    add_settings(parser, "--model", "model settings to change")
    add_flag(parser, "--widths", positive, "multiples of the base width", [1, 2, 4, 8])
    add_flag(parser, "--widen", ("head-dim", "heads"), "by wider heads, or more", "head-dim")
    add_flag(parser, "--steps", positive, "updates of each model, at least 3", 4)
    add_flag(parser, "--learning-rate", finite, "at base width", 1e-3)
    add_flag(parser, "--seeds", positive, "models a width", 2)
    add_flag(parser, "--count", positive, "pictures", 8)
    common.add_output_arguments(parser)
    common.add_json_argument(parser)
    common.add_device_argument(parser)


def run(arguments: argparse.Namespace) -> int:
    a = arguments
    need_matplotlib()
    config, widths = override(preset(a.preset), a.model), sorted(set(a.widths))
    request = CheckRequest(a.preset, config, widths, a.widen, a.steps, a.learning_rate, a.seeds)
    plot, data = (a.out / f"coordinate-check.{kind}" for kind in ("png", "json"))
    check_targets([plot, data], force=a.force)
    device = usable_device(a.device)
    source, _ = open_split(a.data or str(samples.paths()[0].parent), None, "train")
    reading = Progress(a.count)
    size, places = (config.image_size, config.image_size), range(len(source))
    images = read_images(source, size, places, reading.skip, most=a.count).images
    code = reading.finish()
    progress = Progress(2 * len(widths) * a.seeds, "models")
    found = request.run(images.to(device), progress.advance)
    progress.finish()
    curves = {NAMES[mup]: points for mup, points in found.coordinates.items()}
    write_plot(plot, coordinate_figure(curves, "Coordinate check", request.in_words(len(images))))
    content = request.content(len(images)) | found.content() | {"machine": machine(device)}
    write_json(data, content)
    if a.json:
        print_json(content)
    else:
        print("Exponents of growth with width: of activations at the start, and of their change by the last step.\n")
        print_table(*found.table())
        print(f"\n{found.verdict()}")
        print(f"\n{plot.name} and {data.name} are in {a.out}")
    return 1 if found.off else code
