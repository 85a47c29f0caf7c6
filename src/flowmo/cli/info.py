"""``flowmo info``: what a model (its name or file), a released .pth, a generator, the folder of a training run, a
.flowmo file or a shard is, without running it."""

from __future__ import annotations

import argparse
from typing import Any

from ..describe import describe
from ..weights.load import PACKAGED
from .common import add_json_argument
from .fields import add_flag
from .flags import add_pth_arguments
from .models import load_named
from .plain import plain
from .printing import print_json


def add_arguments(parser: argparse.ArgumentParser) -> None:
    what = "model name, .safetensors, .pth, generator, folder of a run, .flowmo file or shard"
    add_flag(parser, "target", str, what, PACKAGED, nargs="?", metavar="WHAT")
    add_pth_arguments(parser)
    add_json_argument(parser)


def run(arguments: argparse.Namespace) -> int:
    content = describe(arguments.target, lambda name: load_named(arguments, name, arguments.raw_weights))
    if arguments.json:
        print_json(content)
    else:
        print(*_lines(content), sep="\n")
    return 0


def _lines(content: dict[str, Any], indent: str = "") -> list[str]:
    lines = []
    for key, value in content.items():
        title = indent + plain(key.replace("_", " "))
        if isinstance(value, dict) and value:
            lines += [title, *_lines(value, indent + "  ")]
        else:
            lines.append(f"{title:<20} {_words(value)}")
    return lines


def _words(value: Any) -> str:
    if isinstance(value, list) and value and isinstance(value[0], int):
        return " x ".join(map(str, value))
    if isinstance(value, list) and len(value) > 6:
        return f"{len(value)}, such as {', '.join(map(plain, value[:2]))}"
    if isinstance(value, list):
        return ", ".join(map(plain, value))
    if value is None or isinstance(value, bool):
        return "none" if value is None else "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.6g}"
    return f"{value:,}" if isinstance(value, int) else plain(value)
