"""Settings as users write them, ``NAME=VALUE``, also those that version 0.1.0 took and that a stage does not have."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypeVar

from ...config import FlowMoConfig, override
from ...errors import ConfigError
from .config import STAGES, ImageRunConfig
from .stored_config import known_settings, settings_of

Config = TypeVar("Config", bound=ImageRunConfig)
ONLY_ZERO = {"freeze_encoder_after": "trains the decoder alone", "losses.perceptual": "has no one-step LPIPS (D2)"}
"""Settings that stages of the decoder alone do not have, because they are 0 there, and why."""


def with_settings(config: Config, settings: Iterable[str], say: Callable[[str], None]) -> Config:
    """Return ``config`` with dotted settings applied.

    A setting of other stages, which changes nothing here, is left out, and ``say`` is told. Raises ConfigError for one
    that is not known, has no such value, or asks for what this stage cannot do.
    """
    entry, own, known, kept = STAGES[config.stage], settings_of(type(config)), known_settings(), []
    title = entry.title or config.stage
    for setting in settings:
        name, _, value = setting.partition("=")
        if name in own or name not in known:
            kept.append(setting)
            continue
        if config.decoder_only and name in ONLY_ZERO and value.strip("0.") != "":
            raise ConfigError(f"{title} {ONLY_ZERO[name]}: {name} must be 0")
        if name in entry.refused:
            raise ConfigError(f"{title} {entry.refused[name]}; leave {name} out")
        say(f"note: {name} is not a setting of the stage {config.stage} and changes nothing; leave it out")
    model = {name for name in settings_of(FlowMoConfig) if name not in own}
    for name in [setting.partition("=")[0] for setting in kept]:
        if name in model:
            raise ConfigError(f"{name} is a setting of the model; flowmo train takes it as --config {name}=VALUE")
    changed: Config = override(config, kept)
    return changed
