"""Commands inside a parser: each is a module with a docstring, ``add_arguments`` and ``run``."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping
from types import ModuleType
from typing import Any


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
