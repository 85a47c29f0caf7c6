"""Stage 2: the configuration of a generator and of the tokens it is trained on (Section 3.5, Appendix A.3; F1)."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Literal

import torch

from ..config import check_range, shortened
from ..errors import ConfigError
from ..quantize.groups import check_split
from ..quantize.tokens import BitOrder, Tokens, check_bits_per_group, check_size
from .settings import DecodeSettings

Place = Literal["integer", "token"]
"""One integer, with an embedding of each value (the paper); or a token, read as its signs, 0 where masked (MaskBit)."""


@dataclass(frozen=True)
class TokenLayout:
    """The tokens of one tokenizer, as its shards have them.

    The defaults are FlowMo-Lo's, with no model's fingerprint.
    """

    fingerprint: str = "00000000"  # of the tokenizer, eight hexadecimal digits
    num_tokens: int = 256  # of an image
    bits_per_token: int = 18  # of a token, over all its groups
    bits_per_group: int = 9  # of the integers that a token is written as
    image_size: tuple[int, int] = (256, 256)  # (height, width) in pixels
    tokenizer: str | None = None  # the name of another tokenizer that made them, such as open-magvit2; None for FlowMo
    num_codes: int | None = None  # integers that it knows, where they are fewer than the bits of a token allow

    def __post_init__(self) -> None:
        if not re.fullmatch("[0-9a-f]{8}", self.fingerprint):
            raise ConfigError(f"fingerprint must be eight hexadecimal digits, got {shortened(self.fingerprint)}")
        check_bits_per_group(self.bits_per_group)
        check_size(self.image_size, "image_size")
        for name in ("num_tokens", "bits_per_token"):
            check_range(name, getattr(self, name))
        check_split(self.bits_per_token, self.bits_per_group)
        codes, whole = self.num_codes, self.bits_per_group == self.bits_per_token
        if codes is not None and not (whole and 0 < codes < 2**self.bits_per_token):
            raise ConfigError(f"num_codes {shortened(codes)} is for tokens of one integer, fewer than its bits allow")

    def no_images(self) -> Tokens:
        """Return tokens of this layout of no image at all, for those who check whether they can decode such."""
        shape = (0, self.num_tokens, self.bits_per_token // self.bits_per_group)
        return Tokens(torch.zeros(shape, dtype=torch.int64), self.bits_per_group, self.image_size)

    @property
    def title(self) -> str:
        """Return the tokenizer in words: its fingerprint, after its name where it has one."""
        return f"{self.tokenizer} {self.fingerprint}" if self.tokenizer else self.fingerprint


@dataclass(frozen=True)
class GeneratorConfig:
    """A bidirectional transformer over integer tokens with a class token.

    With long skips, as in U-ViT, ``depth`` is an even number of blocks around one in the middle, and each block of the
    second half takes, through a linear layer, the output of its mirror image in the first.
    """

    width: int  # of the residual stream, a multiple of ``heads``
    depth: int  # blocks, without the one in the middle
    heads: int  # of attention in each block
    num_classes: int  # labels run from 0; one more embedding stands for no class
    mlp_ratio: int = 4  # hidden width of an MLP over ``width``
    long_skips: bool = True  # False is ``depth`` plain blocks
    bits_per_group: int = 9  # of the integers of its sequence: 256 tokens of 18 bits become 512 of 9
    bit_order: BitOrder = "published"  # which bits of a token an integer holds
    place: Place = "integer"  # what is one place of the transformer's sequence
    tokens: TokenLayout = TokenLayout()  # of the tokens that it was trained on
    decoding: DecodeSettings = field(default_factory=DecodeSettings)  # how it draws tokens where nothing else is said

    def __post_init__(self) -> None:
        for name in ("width", "depth", "heads", "num_classes", "mlp_ratio"):
            check_range(name, getattr(self, name))
        if self.width % self.heads:
            raise ConfigError(f"width {self.width} is not a multiple of heads {self.heads}")
        if self.long_skips and self.depth % 2:
            raise ConfigError(f"long skips need an even depth, got {self.depth}; or set long_skips=false")
        check_bits_per_group(self.bits_per_group)
        check_split(self.tokens.bits_per_token, self.bits_per_group)
        if self.place == "token" and self.tokens.num_codes is not None:
            raise ConfigError("tokens that are not made of bits have no signs to be read as: leave out place=token")
        if self.tokens.num_codes is not None and self.bits_per_group != self.tokens.bits_per_token:
            raise ConfigError(
                f"the tokenizer has {self.tokens.num_codes} codes, fewer than its bits allow: parts of a token would "
                f"make tokens that it does not know; set bits_per_group={self.tokens.bits_per_token}"
            )

    @property
    def sequence_length(self) -> int:
        """Return L, the number of integers of one image, whatever is a place of the transformer's sequence."""
        return self.tokens.num_tokens * self.tokens.bits_per_token // self.bits_per_group

    @property
    def groups(self) -> int:
        """Return G, the number of integers of one token."""
        return self.tokens.bits_per_token // self.bits_per_group

    @property
    def vocabulary(self) -> int:
        """Return V, the number of values of one integer."""
        return self.tokens.num_codes or 2**self.bits_per_group
