"""``flowmo info``: what a model (its name or file), a released .pth, a generator, the folder of a training run, a
.flowmo file or a shard is, without running it."""

from __future__ import annotations

import argparse
from typing import Any

from ..describe import describe
from ..weights.load import PACKAGED
from . import common
from .flags import add_pth_arguments
from .plain import plain


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "target",
        nargs="?",
        default=PACKAGED,
        metavar="WHAT",
        help="model name, .safetensors, .pth, generator, folder of a run, .flowmo file or shard (default: %(default)s)",
    )
    add_pth_arguments(parser)
    common.add_json_argument(parser)


def run(arguments: argparse.Namespace) -> int:
    content = describe(arguments.target, lambda name: common.load_named(arguments, name, arguments.raw_weights))
    if arguments.json:
        common.print_json(content)
    else:
        for line in _lines(content):
            print(line)
    return 0


def _lines(content: dict[str, Any], indent: str = "") -> list[str]:
    lines = []
    for key, value in content.items():
        title = indent + plain(key.replace("_", " "))
        if isinstance(value, dict) and value:
            lines += [title, *_lines(value, indent + "  ")]
        elif isinstance(value, list) and value and isinstance(value[0], int):
            lines.append(f"{title:<20} {' x '.join(map(str, value))}")
        elif isinstance(value, list) and len(value) > 6:
            lines.append(f"{title:<20} {len(value)}, such as {', '.join(map(plain, value[:2]))}")
        elif isinstance(value, list):
            lines.append(f"{title:<20} {', '.join(map(plain, value))}")
        elif value is None or isinstance(value, bool):
            lines.append(f"{title:<20} {'none' if value is None else 'yes' if value else 'no'}")
        elif isinstance(value, float):
            lines.append(f"{title:<20} {value:.6g}")
        else:
            lines.append(f"{title:<20} {value:,}" if isinstance(value, int) else f"{title:<20} {plain(value)}")
    return lines
