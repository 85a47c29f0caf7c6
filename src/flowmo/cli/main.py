"""The ``flowmo`` command: parses arguments, calls one function, prints errors in the user's words."""

from __future__ import annotations

import argparse
import sys

from ..errors import FlowMoError
from . import train

COMMANDS = {"train": (train, "train a tokenizer (Stage 1A)")}


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="flowmo", description="A picture to a few hundred bytes and back.")
    subparsers = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, (module, help_text) in COMMANDS.items():
        module.add_arguments(subparsers.add_parser(name, help=help_text, description=module.__doc__))
    arguments = parser.parse_args(argv)
    try:
        return COMMANDS[arguments.command][0].run(arguments)
    except FlowMoError as error:
        print(f"flowmo {arguments.command}: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
