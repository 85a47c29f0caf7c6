"""Flags of a dataclass: type, choices and default of each come from its field."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Mapping
from typing import Any, get_args, get_type_hints

from .values import finite, positive, rho, steps

OF_NAME = {"num_steps": steps, "rho": rho}
OF_TYPE = {int: positive, float: finite}
METAVARS = {int: "N", float: "X"}


def add_fields(group: Any, defaults: Any, flags: Mapping[str, tuple[str, str]]) -> None:
    """Add a flag for each field named in ``flags``, {field: (flag, help)}, whose default is that of the dataclass."""
    hints = get_type_hints(type(defaults))
    for name, (flag, text) in flags.items():
        hint, value = hints[name], getattr(defaults, name)
        kind: dict[str, Any] = {"choices": get_args(hint)}
        if hint in OF_TYPE:
            kind = {"type": OF_NAME.get(name, OF_TYPE[hint]), "metavar": METAVARS[hint]}
        shown = f"{value:g}" if hint is float else value
        group.add_argument(flag, dest=name, default=value, help=f"{text} (default: {shown})", **kind)


def fields_of(arguments: argparse.Namespace, kind: type) -> dict[str, Any]:
    """Return what the arguments say of the fields of a dataclass, by name."""
    return {f.name: getattr(arguments, f.name) for f in dataclasses.fields(kind) if f.name in arguments}
