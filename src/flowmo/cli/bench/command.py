"""What to measure: one subcommand each."""

from __future__ import annotations

import argparse
from types import ModuleType

from . import device, evaluation, speed, training

KINDS: dict[str, tuple[ModuleType, str]] = {
    "encode": (speed, "picture to tokens"),
    "decode": (speed, "tokens to picture, for several numbers of steps"),
    "device": (device, "whether this device computes what it should, and its ceilings"),
    "evaluate": (evaluation, "a plan of how long a data set takes on machines that are not at hand"),
    "train": (training, "updates of a training, and an estimate for machines that are not at hand"),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    kinds = parser.add_subparsers(
        dest="what", metavar="WHAT", required=True, title="what to measure", help=", ".join(KINDS)
    )
    for name, (module, summary) in KINDS.items():
        text = (module.__doc__ or "").partition(": ")[2].replace("`", "")
        kind = kinds.add_parser(name, help=summary, description=text[:1].upper() + text[1:], allow_abbrev=False)
        module.add_arguments(kind)


def run(arguments: argparse.Namespace) -> int:
    return KINDS[arguments.what][0].run(arguments)
