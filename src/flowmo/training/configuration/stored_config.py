"""Configurations as checkpoints store them, also those of version 0.1.0, whose runs stored every stage's settings."""

from __future__ import annotations

import dataclasses
import typing
from typing import Any

from ...config import from_dict
from ...errors import ConfigError
from .config import FIRST_STAGE, STAGES
from .run_config import RunConfig


def stored_config(kind: type[RunConfig], data: dict[str, Any]) -> RunConfig:
    """Return the configuration that a checkpoint stores.

    kind: what the run trains; of tokenizers, the stage is found in ``data``. Settings of other stages, which version
    0.1.0 stored too, are dropped: they changed nothing. Raises ConfigError for a stage or a setting that is not known.
    """
    if not isinstance(data, dict) or kind.trains != "tokenizer":
        return from_dict(kind, data)
    name = data.get("stage", FIRST_STAGE)
    if name not in STAGES:
        raise ConfigError(f"stage must be one of {', '.join(STAGES)}; got {name!r}. A newer version may know it")
    config = STAGES[name].config
    return from_dict(config, _without(data, config, known_settings()))


def _without(data: dict[str, Any], config: type, known: set[str], prefix: str = "") -> dict[str, Any]:
    """Return ``data`` without the settings that only other configurations know, in nested tables too."""
    hints = typing.get_type_hints(config)
    names = {f.name for f in dataclasses.fields(config)}
    kept: dict[str, Any] = {}
    for name, value in data.items():
        if name not in names and prefix + name in known:
            continue
        if isinstance(value, dict) and dataclasses.is_dataclass(hints.get(name)):
            value = _without(value, hints[name], known, f"{prefix}{name}.")
        kept[name] = value
    return kept


def settings_of(config: type) -> set[str]:
    """Return the dotted names of a configuration's settings."""
    found: set[str] = set()
    hints = typing.get_type_hints(config)
    for f in dataclasses.fields(config):
        found.add(f.name)
        if dataclasses.is_dataclass(hints[f.name]):
            found |= {f"{f.name}.{name}" for name in settings_of(hints[f.name])}
    return found


def known_settings() -> set[str]:
    """Return the dotted names of the settings of all stages."""
    return set().union(*(settings_of(entry.config) for entry in STAGES.values()))
