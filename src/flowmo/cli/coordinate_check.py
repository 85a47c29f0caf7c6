"""``flowmo coordinate-check``: trains a few steps at several widths and shows whether wider layers move farther. Under
muP they do not, so a learning rate found at one width holds at others; under PyTorch's default they do."""

from __future__ import annotations

import argparse

import torch

from .. import config as configs
from .. import samples
from ..config import to_dict
from ..data import open_split, read_images
from ..errors import ConfigError
from ..files import write_json
from ..presets import PRESETS, preset
from ..profiling.coordinate_check import NAMES, check
from ..provenance import machine
from ..viewing.coordinate_plot import coordinate_figure
from ..viewing.plots import need_matplotlib, write_plot
from . import common


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "data",
        nargs="?",
        metavar="DATA",
        help="folder of pictures, Parquet files, or .npy (default: the sample pictures)",
    )
    parser.add_argument("--preset", default="tiny", help=f"the base model, one of {', '.join(PRESETS)} (default: tiny)")
    parser.add_argument(
        "--model", nargs="+", action="extend", default=[], metavar="NAME=VALUE", help="model settings to change"
    )
    parser.add_argument(
        "--widths",
        type=common.positive,
        nargs="+",
        default=[1, 2, 4, 8],
        metavar="N",
        help="multiples of the base width (default: 1 2 4 8)",
    )
    parser.add_argument(
        "--widen", choices=("head-dim", "heads"), default="head-dim", help="by wider heads, or more (default: head-dim)"
    )
    parser.add_argument(
        "--steps", type=common.positive, default=4, metavar="N", help="updates of each model, at least 3 (default: 4)"
    )
    parser.add_argument(
        "--learning-rate", type=common.finite, default=1e-3, metavar="X", help="at base width (default: 0.001)"
    )
    parser.add_argument("--seeds", type=common.positive, default=2, metavar="N", help="models a width (default: 2)")
    parser.add_argument("--count", type=common.positive, default=8, metavar="N", help="pictures (default: 8)")
    common.add_output_arguments(parser)
    common.add_json_argument(parser)
    common.add_device_argument(parser)


def run(arguments: argparse.Namespace) -> int:
    need_matplotlib()
    if arguments.learning_rate <= 0:
        raise ConfigError(f"--learning-rate must be positive, got {arguments.learning_rate:g}")
    config = configs.override(preset(arguments.preset), arguments.model)
    factors = sorted(set(arguments.widths))
    plot, data = (arguments.out / f"coordinate-check.{kind}" for kind in ("png", "json"))
    common.check_targets([plot, data], [], arguments.force)
    device = common.find_device(arguments.device)
    images, bad = _pictures(arguments, config.image_size)
    progress = common.Progress(2 * len(factors) * arguments.seeds, "models")
    found = check(
        config,
        factors,
        images.to(device),
        arguments.widen,
        arguments.steps,
        arguments.learning_rate,
        range(arguments.seeds),
        progress.advance,
    )
    progress.finish()
    note = (
        f"{arguments.preset}, widths x{', x'.join(map(str, factors))} by {arguments.widen}; {len(images)} pictures, "
        f"{arguments.steps} steps at learning rate {arguments.learning_rate:g}, {arguments.seeds} models a width\n"
        "solid: encoder, dashed: decoder"
    )
    write_plot(
        plot,
        coordinate_figure({NAMES[mup]: points for mup, points in found.coordinates.items()}, "Coordinate check", note),
    )
    content = {
        "model": to_dict(config),
        "widths": factors,
        "widened_by": arguments.widen,
        "steps": arguments.steps,
        "learning_rate": arguments.learning_rate,
        "seeds": arguments.seeds,
        "pictures": len(images),
        **found.content(),
        "machine": machine(device),
    }
    write_json(data, content)
    if arguments.json:
        common.print_json(content)
    else:
        print("Exponents of growth with width: of activations at the start, and of their change by the last step.\n")
        common.print_table(*found.table())
        print(f"\n{found.verdict()}")
        print(f"\n{plot.name} and {data.name} are in {arguments.out}")
    return 1 if found.off or bad else 0


def _pictures(arguments: argparse.Namespace, size: int) -> tuple[torch.Tensor, int]:
    """The first pictures that can be read, and the number of those that cannot, which are named."""
    path = arguments.data or str(samples.paths()[0].parent)
    source, _ = open_split(path, None, "train")
    progress = common.Progress(arguments.count)
    images = read_images(source, (size, size), range(len(source)), progress.skip, most=arguments.count).images
    return images, progress.finish()
