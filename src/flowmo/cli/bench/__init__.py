"""``flowmo bench``: how fast a model codes, samples and trains on this machine, and what training takes on others."""

from __future__ import annotations

import argparse

from ..arguments.subcommands import add_commands
from . import device, evaluation, speed, training

KINDS = {
    "encode": (speed, "picture to tokens"),
    "decode": (speed, "tokens to picture, for several numbers of steps"),
    "device": (device, "whether this device computes what it should, and its ceilings"),
    "evaluate": (evaluation, "a plan of how long a data set takes on machines that are not at hand"),
    "train": (training, "updates of a training, and an estimate for machines that are not at hand"),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    settings = {"dest": "what", "metavar": "WHAT", "required": True, "title": "what to measure"}
    list(add_commands(parser, KINDS, help=", ".join(KINDS), **settings))


def run(arguments: argparse.Namespace) -> int:
    return KINDS[arguments.what][0].run(arguments)
