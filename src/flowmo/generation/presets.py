"""Named generators (Appendix A.3; F1)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from ..errors import ConfigError
from .config import GeneratorConfig, TokenLayout

FLOWMO_LO = TokenLayout()


def maskgit_397m(tokens: TokenLayout = FLOWMO_LO, num_classes: int = 1000) -> GeneratorConfig:
    """Return the paper's generator: "hidden size 1024 and 28 layers, with 397M total parameters".

    28 plain blocks would be 355 M parameters.
    14 and 14 blocks around one in the middle, with 14 long skips, are 397.18 M on 512 integers of 9 bits.
    Expected with the settings of ``training.generator.published`` (Table 2, ImageNet at 256 pixels, FlowMo-Lo's
    tokens): FID 4.30, sFID 10.31, Inception Score 274, precision 0.86, recall 0.47.
    """
    return GeneratorConfig(1024, 28, 16, num_classes, bits_per_group=tokens.bits_per_group, tokens=tokens)


def maskgit_plain(tokens: TokenLayout = FLOWMO_LO, num_classes: int = 1000) -> GeneratorConfig:
    """Return the paper's generator by the other reading of "28 layers": no long skips, 355 M parameters."""
    return replace(maskgit_397m(tokens, num_classes), long_skips=False)


def maskgit_mini(tokens: TokenLayout = FLOWMO_LO, num_classes: int = 100) -> GeneratorConfig:
    """Return a generator of 4.7 M parameters that reads a token as its signs, for a CPU.

    It learns tokens of flowmo-mini in an hour or two: 64 of 27 bits for 128 x 128 pixels. Tokens that are not made of
    bits are read as integers.
    """
    config = replace(maskgit_397m(tokens, num_classes), width=256, depth=4, heads=4)
    return config if tokens.num_codes is not None else replace(config, place="token")


def tiny(tokens: TokenLayout = FLOWMO_LO, num_classes: int = 10) -> GeneratorConfig:
    """Return a generator small enough for tests."""
    return replace(maskgit_397m(tokens, num_classes), width=64, depth=2, heads=2)


PRESETS = {"maskgit-397m": maskgit_397m, "maskgit-plain": maskgit_plain, "maskgit-mini": maskgit_mini, "tiny": tiny}


def preset(name: str) -> Callable[[TokenLayout, int], GeneratorConfig]:
    """Return what makes the configuration of a name for (tokens, number of classes). Raises ConfigError for another."""
    if name not in PRESETS:
        raise ConfigError(f"no preset {name!r}; there are {', '.join(PRESETS)}")
    return PRESETS[name]
