"""Settings as users write them, ``NAME=VALUE``, also those that version 0.1.0 took and that a stage does not have."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypeVar

from ...config import FlowMoConfig, override
from ...errors import ConfigError
from .config import TokenizerConfig
from .stored_config import known_settings, settings_of

Config = TypeVar("Config", bound=TokenizerConfig)
IN_WORDS = {"mode_seeking": "Stage 1B", "distillation": "distillation"}
ONLY_VALUE = {"freeze_encoder_after": "0", "losses.perceptual": "0"}
"""Settings that stages of the decoder alone do not have, because they have one value there."""
OWN_CHAINS = ("sample.mode", "sample.num_steps", "sample.grid")


def with_settings(config: Config, settings: Iterable[str], say: Callable[[str], None]) -> Config:
    """Return ``config`` with dotted settings applied.

    A setting of other stages, which changes nothing here, is left out, and ``say`` is told. Raises ConfigError for one
    that is not known, has no such value, or asks for what this stage cannot do.
    """
    own, known, kept = settings_of(type(config)), known_settings(), []
    for setting in settings:
        name, _, value = setting.partition("=")
        if name in own or name not in known:
            kept.append(setting)
            continue
        if config.decoder_only and name in ONLY_VALUE and value.strip("0.") != "":
            reason = "trains the decoder alone" if name == "freeze_encoder_after" else "has no one-step LPIPS (D2)"
            raise ConfigError(f"{IN_WORDS[config.stage]} {reason}: {name} must be 0")
        if config.stage == "distillation" and name in OWN_CHAINS:
            raise ConfigError(
                f"distillation has its own numbers of steps: set distill.steps; leave out {', '.join(OWN_CHAINS)}"
            )
        say(f"note: {name} is not a setting of the stage {config.stage} and changes nothing; leave it out")
    model = {name for name in settings_of(FlowMoConfig) if name not in own}
    for name in [setting.partition("=")[0] for setting in kept]:
        if name in model:
            raise ConfigError(f"{name} is a setting of the model; flowmo train takes it as --config {name}=VALUE")
    changed: Config = override(config, kept)
    return changed
