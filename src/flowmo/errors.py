"""The errors a user meets. Each message says what is wrong and what to do about it."""

from __future__ import annotations


class FlowMoError(Exception):
    """Base of every error that FlowMo raises for a user. The commands print it without a traceback."""


class ConfigError(FlowMoError):
    """A configuration that cannot be built, or an unknown or ill-typed setting."""


class WeightsError(FlowMoError):
    """Weights that are missing, damaged, unsafe to read, or of another model."""


class TokenFileError(FlowMoError):
    """A token file or shard that is truncated, corrupt, foreign, or of another model."""


class ImageError(FlowMoError):
    """A picture that cannot be read, or an image tensor of the wrong shape."""


class DataError(FlowMoError):
    """A data set that cannot be found or read."""


class TrainingError(FlowMoError):
    """A training run that cannot start, continue, or be resumed."""


def require(holds: bool, message: str) -> None:
    """Raise ConfigError with ``message`` unless ``holds``."""
    if not holds:
        raise ConfigError(message)
