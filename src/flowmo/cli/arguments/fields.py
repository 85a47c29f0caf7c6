"""Flags by their kind: type, name of the value and text of the default follow from it, or from a dataclass's field."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any, get_args, get_type_hints

from .values import finite, positive, rho, seed, size, steps

METAVARS = {positive: "N", steps: "N", seed: "N", finite: "X", rho: "RHO", size: "HxW", Path: "FILE"}
OF_NAME = {"num_steps": steps, "rho": rho}
OF_TYPE = {int: positive, float: finite}


def add_flag(
    group: Any,
    flag: str,
    kind: Callable[[str], Any] | Collection[str],
    help: str,
    default: Any = None,
    **settings: Any,
) -> None:
    """Add a flag, or the name of a positional argument, whose help ends with its default unless that is None.

    kind: what makes a value of the text, or the values that there are.
    default: a list is of a flag with several values.
    settings: more for ``add_argument``.
    """
    if callable(kind):
        made: dict[str, Any] = {"type": kind, "metavar": METAVARS.get(kind)}
    else:
        made = {"choices": kind}
    if isinstance(default, list):
        made["nargs"] = "+"
    if default is not None and default != []:
        help = f"{help} (default: {_shown(default)})"
    group.add_argument(flag, default=default, help=help, **(made | settings))


def add_settings(group: Any, flag: str, what: str) -> None:
    """Add a flag of ``NAME=VALUE``, one or more, which may be given again."""
    group.add_argument(flag, nargs="+", action="extend", default=[], metavar="NAME=VALUE", help=what)


def add_fields(group: Any, defaults: Any, flags: Mapping[str, tuple[str, str]], stored: bool = False) -> None:
    """Add a flag for each field named in ``flags``, {field: (flag, help)}, whose default is that of the dataclass.

    stored: the defaults are stored with a model, and the flags have none.
    """
    hints = get_type_hints(type(defaults))
    for name, (flag, text) in flags.items():
        hint = hints[name]
        kind = OF_NAME.get(name, OF_TYPE[hint]) if hint in OF_TYPE else get_args(hint)
        metavar = {"metavar": "X"} if hint is float else {}
        add_flag(group, flag, kind, text, None if stored else getattr(defaults, name), dest=name, **metavar)


def fields_of(arguments: argparse.Namespace, kind: type) -> dict[str, Any]:
    """Return what the arguments say of the fields of a dataclass, by name."""
    return {f.name: getattr(arguments, f.name) for f in dataclasses.fields(kind) if f.name in arguments}


def _shown(default: Any) -> str:
    if isinstance(default, list):
        return " ".join(map(_shown, default))
    return f"{default:g}" if isinstance(default, float) else str(default)
