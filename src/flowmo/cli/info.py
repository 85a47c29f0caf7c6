"""``flowmo info``: says what a model or a file is, without running it.

It takes a model (its name or file), a released .pth, a generator, the folder of a training run, a .flowmo file or a
shard.
"""

from __future__ import annotations

import argparse

from ..describe import describe
from ..text import in_words
from ..weights.load import PACKAGED
from .arguments.common import add_json_argument
from .arguments.fields import add_flag
from .arguments.flags import add_pth_arguments
from .arguments.models import load_options
from .printing import print_json


def add_arguments(parser: argparse.ArgumentParser) -> None:
    what = "model name, .safetensors, .pth, generator, folder of a run, .flowmo file or shard"
    add_flag(parser, "target", str, what, PACKAGED, nargs="?", metavar="WHAT")
    what = "read the tensors of checkpoints and generators too, and compare checkpoints with their checksums"
    parser.add_argument("--verify", action="store_true", help=what)
    add_pth_arguments(parser)
    add_json_argument(parser)


def run(arguments: argparse.Namespace) -> int:
    content = describe(arguments.target, load_options(arguments).load, arguments.verify)
    if arguments.json:
        print_json(content)
    else:
        print(*in_words(content), sep="\n")
    return 0
