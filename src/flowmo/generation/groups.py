"""Stage 2: tokens of images to the sequence of integers that a generator sees, and back (Appendix A.3; A8).

The integers follow one another token by token, then group by group; quantize/groups.py says which bits each holds.
"""

from __future__ import annotations

from torch import Tensor

from ..config import FlowMoConfig
from ..errors import TokenFileError
from ..quantize.groups import regroup
from ..quantize.tokens import BitOrder, Tokens
from .config import GeneratorConfig, TokenLayout

MOST_LARGER = 16
"""How many times the pixels that a tokenizer was trained at its generator's images may have."""


def to_sequence(tokens: Tokens, bits_per_group: int, bit_order: BitOrder = "published") -> Tensor:
    """Return tokens of B images as sequences int64 B L, L = num_tokens * bits_per_token / bits_per_group."""
    return regroup(tokens.indices, tokens.bits_per_group, bits_per_group, wanted_order=bit_order).flatten(1)


def to_tokens(sequence: Tensor, config: GeneratorConfig) -> Tokens:
    """Return the tokens of sequences B L in the groups of the tokenizer, the inverse of :func:`to_sequence`."""
    layout = config.tokens
    indices = sequence.unflatten(1, (layout.num_tokens, -1)).cpu()
    tokens = regroup(indices, config.bits_per_group, layout.bits_per_group, config.bit_order)
    return Tokens(tokens, layout.bits_per_group, layout.image_size)


def check_tokenizer(layout: TokenLayout, fingerprint: int) -> None:
    """Raise TokenFileError unless a tokenizer of that fingerprint decodes these tokens."""
    if layout.fingerprint != f"{fingerprint:08x}":
        own = f"--peer {layout.tokenizer}=WEIGHTS with the weights" if layout.tokenizer else "the tokenizer"
        raise TokenFileError(
            f"the generator was trained on tokens of the tokenizer {layout.title}, but this one is {fingerprint:08x}: "
            f"what it generates would be noise to it; give {own} that made its shards"
        )


def check_image_size(layout: TokenLayout, config: FlowMoConfig) -> None:
    """Raise TokenFileError for images of far more pixels than a FlowMo without a transform was trained at.

    The size is a word of the generator's file alone, and decoding would never end.
    """
    height, width = layout.image_size
    if config.transform is None and height * width > MOST_LARGER * config.image_size**2:
        own = f"{config.image_size}x{config.image_size}"
        raise TokenFileError(f"tokens of images of {height}x{width} pixels, but the model has {own}")
