"""Commands inside a parser, each a module with a docstring, ``add_arguments`` and ``run``; what wrong words get."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping
from types import ModuleType
from typing import Any, NoReturn

MISSING = "the following arguments are required"
"""How argparse begins when words are missing."""


class Parser(argparse.ArgumentParser):
    """A parser whose errors are one line, and say what to do; the usage of all flags would bury them."""

    def _get_value(self, action: argparse.Action, arg_string: str) -> Any:
        if not arg_string:  # such as of a variable that is not set; as a path it would be the current folder
            raise argparse.ArgumentError(action, "an empty value; write what is meant, or leave it out")
        return super()._get_value(action, arg_string)

    def error(self, message: str) -> NoReturn:
        """Print what is wrong on stderr and exit with 2."""
        inside = next((each for each in self._actions if isinstance(each, argparse._SubParsersAction)), None)
        if inside is not None and message.startswith(MISSING):
            message = f"say which: {', '.join(inside.choices)}"
        elif message.startswith(MISSING):
            names = message.removeprefix(MISSING).strip(": ")
            message = f"missing: {names}; '{self.prog} --help' shows what goes where"
        message = message.removeprefix("argument ").replace("expected one argument", "expected a value after it")
        self.exit(2, f"{self.prog}: {message}\n")


def add_commands(
    parser: argparse.ArgumentParser, commands: Mapping[str, tuple[ModuleType, str]], **settings: Any
) -> Iterator[tuple[str, argparse.ArgumentParser]]:
    """Add a parser for each command, {name: (module, summary)}, and yield it with its name.

    settings: of ``add_subparsers``.
    """
    inside = parser.add_subparsers(**settings)
    for name, (module, summary) in commands.items():
        command = inside.add_parser(name, help=summary, description=_description(module), allow_abbrev=False)
        module.add_arguments(command)
        yield name, command


def _description(module: ModuleType) -> str:
    """Return the docstring without the command's name at its beginning."""
    text = (module.__doc__ or "").partition(": ")[2].replace("`", "")
    return text[:1].upper() + text[1:]
