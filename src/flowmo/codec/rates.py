"""How many bits of each token fit a rate, of models that code at any rate (O12)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..config import FlowMoConfig
from ..errors import ConfigError
from ..quantize.tokens import payload_size


def bits_per_token_at(
    config: FlowMoConfig,
    size: tuple[int, int],
    bits_per_token: int | None = None,
    bytes_per_image: int | None = None,
    bits_per_pixel: float | None = None,
) -> int | None:
    """Return how many bits of each token are kept at a rate, None for all of them.

    The rate is said by one of the last three arguments.
    size: (height, width) of the image in pixels.
    bytes_per_image: without the header of a file.
    Raises ConfigError where the model has one rate alone, or where the rate is below one group of bits a token.
    """
    asked, tokens = bits_per_token, config.tokens_of(size)
    if bytes_per_image is not None:
        asked = bytes_per_image * 8 // tokens
    elif bits_per_pixel is not None:
        asked = int(bits_per_pixel * size[0] * size[1] / tokens + 1e-9)
    if asked is None or asked == config.bits_per_token:
        return None
    if config.transform is None:
        raise ConfigError(
            f"the model codes at one rate alone, {config.bits_per_token} bits a token; leave out the rate, or use a "
            "model with a transform, such as those of the preset flowmo-mini"
        )
    if bits_per_token is None:
        asked = min(asked, config.bits_per_token)
    whole = asked - asked % config.bits_per_group
    if whole < 1:
        raise ConfigError(
            f"{size[0]}x{size[1]} pixels are {tokens} tokens, which need at least {config.bits_per_group} bits each: "
            f"{payload_size(tokens, config.bits_per_group)} bytes"
        )
    if asked > config.bits_per_token:
        raise ConfigError(f"--bits-per-token {asked}: the model has {config.bits_per_token} bits a token")
    return None if whole == config.bits_per_token else whole


@dataclass(frozen=True)
class Rates:
    """Rates that a model is measured at, said in one of three ways; by default one, with all of its bits."""

    bits_per_token: Sequence[int] | None = None  # the first bits of each token
    bytes: Sequence[int] | None = None  # an image, without the header of a file
    bits_per_pixel: Sequence[float] | None = None  # bits of an image over its pixels

    @property
    def asked(self) -> Sequence[float]:
        """Return what was asked for, in its own unit; empty for all bits."""
        return self.bits_per_token or self.bytes or self.bits_per_pixel or ()

    def of(self, config: FlowMoConfig) -> list[int | None]:
        """Return the bits a token of each rate for images of the model's own size.

        They rise, each once; None, which is all bits, comes last. Raises ConfigError as :func:`bits_per_token_at`.
        """
        size = (config.image_size, config.image_size)
        found = {bits_per_token_at(config, size, bits) for bits in self.bits_per_token or ()}
        found |= {bits_per_token_at(config, size, bytes_per_image=count) for count in self.bytes or ()}
        found |= {bits_per_token_at(config, size, bits_per_pixel=rate) for rate in self.bits_per_pixel or ()}
        return sorted(found or {None}, key=lambda bits: bits or config.bits_per_token)
