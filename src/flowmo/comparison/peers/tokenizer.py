"""Table 1's other tokenizers with FlowMo's verbs, to be evaluated and to train generators over (Table 2)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from ...errors import ConfigError
from ...image_utils.scale import to_uint8
from ...provenance import weights_checksum
from ...quantize.tokens import Tokens
from .network import PeerNetwork
from .registry import CONTINUOUS, PEERS, load_peer

MAX_SIDE = 2**11
"""Pixels of a side of images, as many as FlowMo's own models without a transform code (``codec.MAX_CODED_PIXELS``)."""


@dataclass(frozen=True)
class PeerConfig:
    """A tokenizer of the registry by its name, for square images of one size."""

    name: str  # in the registry
    image_size: int  # the side of its images, in pixels
    num_tokens: int  # integers of an image
    bits_per_group: int  # bits of each of these integers
    num_groups: ClassVar[int] = 1  # a token is one integer
    sampler: ClassVar[None] = None
    """Nothing is drawn: a token has one image."""

    @property
    def bits_per_token(self) -> int:
        return self.bits_per_group

    def tokens_of(self, size: tuple[int, int]) -> int:
        """Return the tokens of an image; raises ConfigError for another size (height, width) than its own."""
        if size != (self.image_size, self.image_size):
            raise ConfigError(f"{self.name} was opened for {self.image_size} x {self.image_size} pixels, not {size}")
        return self.num_tokens


class PeerTokenizer(nn.Module):
    """A network of the registry for images of one size; its tokens are in the order of rows.

    Raises ImageError for a size that the network does not take.
    """

    def __init__(self, name: str, network: PeerNetwork, image_size: int) -> None:
        super().__init__()
        network.check_size(image_size, image_size)
        self.network = network
        empty = torch.zeros(1, 3, image_size, image_size, device=self.device)
        self.grid = network.tokenize(empty).shape[1:]  # of its tokens, such as (16, 16)
        self.config = PeerConfig(name, image_size, self.grid.numel(), network.bits_per_token)

    @property
    def device(self) -> torch.device:
        """Return the device of the weights."""
        return next(self.network.parameters()).device

    @property
    def num_codes(self) -> int | None:
        """Return the integers that it knows, from 0 on, where they are fewer than the bits of a token allow."""
        codes = self.network.num_codes
        return codes if codes < 2**self.config.bits_per_token else None

    @property
    def has_tokens(self) -> bool:
        """Return whether its codes are integers, which is so of all in the registry."""
        return True

    def fingerprint(self) -> int:
        """Return 32 bits of a hash over name, image size and weights, which its token files and shards carry."""
        return int(weights_checksum(self)[:8], 16)

    def codes(self, images: Tensor) -> Tensor:
        """Return the codes B C h w of images B 3 H W in [-1, 1]. Raises ConfigError for another size."""
        return self.code_of(self.tokenize(images).indices)

    @torch.no_grad()
    def code_of(self, indices: Tensor) -> Tensor:
        """Return the codes B C h w, on the network's device, of integers B N 1.

        Raises ConfigError for integers without a code.
        """
        grid = indices[..., 0].reshape(len(indices), *self.grid).to(self.device)
        if grid.numel() and int(grid.max()) >= self.network.num_codes:
            raise ConfigError(
                f"{self.config.name} has {self.network.num_codes} codes, and a token is {int(grid.max())}"
            )
        return self.network.codes(grid)

    def decode_noise(self, code: Tensor, noise: Tensor | None = None, sampler: Any = None) -> Tensor:
        """Return the images B 3 H W in [-1, 1] of codes B C h w. noise and sampler change nothing."""
        return self.network.decode(code)

    def tokenize(self, images: Tensor, bits_per_token: int | None = None) -> Tokens:
        """Return the Tokens of images B 3 H W in [-1, 1], on the CPU.

        Raises ConfigError for another size, or a part of a token's bits.
        """
        if bits_per_token not in (None, self.config.bits_per_token):
            raise ConfigError(f"the tokens of {self.config.name} are whole; leave out the rate")
        self.config.tokens_of((images.shape[2], images.shape[3]))
        indices = self.network.tokenize(images.to(self.device)).flatten(1)[..., None].cpu()
        return Tokens(indices, self.config.bits_per_group, (images.shape[2], images.shape[3]))

    def check_decodable(self, tokens: Tokens) -> None:
        """Raise ConfigError for another tokenizer's tokens, by their number and size."""
        found = (tokens.num_tokens, tokens.num_groups, tokens.bits_per_group)
        if found != (self.config.tokens_of(tokens.image_size), 1, self.config.bits_per_group):
            raise ConfigError(f"{found[0]} x {found[1]} tokens of {found[2]} bits are not of {self.config.name}")

    def detokenize(
        self, tokens: Tokens, *, seed: int | Sequence[int] = 0, uint8: bool = False, **sampler: Any
    ) -> Tensor:
        """Return the images B 3 H W in [-1, 1], or uint8, that tokens decode to, on the network's device.

        The seed changes nothing. Raises ConfigError for settings of a sampler, which it does not have, and for another
        tokenizer's tokens.
        """
        given = [name for name, value in sampler.items() if value is not None]
        if given:
            raise ConfigError(f"{self.config.name} has no sampler; leave out {', '.join(given)}")
        self.check_decodable(tokens)
        images = self.decode_noise(self.code_of(tokens.indices))
        return to_uint8(images) if uint8 else images


def open_tokenizer(spec: str, image_size: int, device: torch.device | str = "cpu") -> PeerTokenizer:
    """Return the tokenizer of ``NAME=FILE``, with a name of the registry.

    Raises ConfigError, WeightsError or ImageError.
    """
    name, path = check_spec(spec)
    return PeerTokenizer(name, load_peer(name, path).to(device), image_size)


def open_square(spec: str, size: tuple[int, int], device: torch.device | str = "cpu") -> PeerTokenizer:
    """Return the tokenizer of ``NAME=FILE`` for images of a size (height, width).

    Raises ConfigError for one that is not square or too large, and as :func:`open_tokenizer` does.
    """
    if size[0] != size[1]:
        raise ConfigError(f"--peer {spec}: other tokenizers take square images here, not {size[0]} x {size[1]}")
    if size[0] > MAX_SIDE:  # a file's word, and an image of it would be coded at once
        raise ConfigError(f"--peer {spec}: images of {size[0]} x {size[1]} pixels are too large: at most {MAX_SIDE:,}")
    return open_tokenizer(spec, size[0], device)


def check_spec(spec: str) -> tuple[str, Path]:
    """Return name and path of ``NAME=FILE``.

    Raises ConfigError for a name that is not in the registry, for one of a tokenizer without tokens, and for a file
    that is not there.
    """
    name, _, path = spec.partition("=")
    if name in CONTINUOUS:
        raise ConfigError(f"{name} has a continuous latent and no tokens; its discrete sister is {CONTINUOUS[name]}")
    if name not in PEERS or not path:
        raise ConfigError(f"{spec!r}: write NAME=FILE; 'flowmo compare --peers list' shows the names and their files")
    file = Path(path).expanduser()
    if not file.is_file():
        raise ConfigError(f"{spec}: there is no file {path}; {PEERS[name].source} publishes it")
    return name, file
