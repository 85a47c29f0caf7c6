"""The size of images that a model codes: the one that is asked for, its own, or each image's."""

from __future__ import annotations

from ..config import FlowMoConfig
from ..errors import ConfigError
from .entries import check_image_size


def image_size_of(asked: tuple[int, int] | str | None, config: FlowMoConfig) -> tuple[int, int]:
    """Return the (height, width) that is asked for, or the model's.

    Raises ImageError for one that the model cannot take, ConfigError for ``original``, where all are of one size.
    """
    if isinstance(asked, str):
        raise ConfigError("--size original is for pictures one by one; name a height and width here")
    size = asked or (config.image_size, config.image_size)
    check_image_size(size, config)
    return size


def check_original_size(config: FlowMoConfig, fit: str = "crop") -> None:
    """Raise ConfigError where a model has one size, so that images cannot keep theirs, or where ``fit`` cuts them."""
    if config.transform is None:
        raise ConfigError(
            f"--size original: the model codes {config.image_size}x{config.image_size} pixels; use a model with a "
            "transform, such as those of the preset flowmo-mini"
        )
    if fit != "crop":
        raise ConfigError(f"--size original keeps all of a picture as it is; leave out --fit {fit}")
