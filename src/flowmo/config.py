"""What a model is: frozen dataclasses that every other file receives, and their readable form on disk.

Names follow the paper's Table 6. A configuration is checked when it is made, so that a wrong one fails
before any weight is allocated. ``to_dict`` / ``from_dict`` are exact inverses and plain JSON.
"""

from __future__ import annotations

import dataclasses
import json
import math
import re
import types
import typing
from dataclasses import dataclass, field
from typing import Any, Literal

from .errors import ConfigError
from .setting_names import RENAMED, unknown_setting

LIMITS = {
    "patch_size": 2**10, "width": 2**16, "depth": 2**9, "heads": 2**10, "mlp_ratio": 2**6, "image_size": 2**16,
    "num_tokens": 2**20, "bits_per_token": 2**12, "num_steps": 10_000, "num_classes": 2**24,
}  # fmt: skip
"""No model is larger; a file that says so is damaged, or made to stop who opens it."""


def check_range(name: str, value: int) -> None:
    """Raise ConfigError unless the value of a size is at least 1 and at most its limit."""
    if not 1 <= value <= LIMITS[name]:
        found = f"{value:,}" if abs(value) < 2**64 else shortened(value)
        raise ConfigError(f"{name} must be at least 1 and at most {LIMITS[name]:,}, got {found}")


@dataclass(frozen=True)
class TransformerConfig:
    """One two-stream transformer, encoder or decoder (Section 3.1, Table 6)."""

    patch_size: int  # side of a patch of the image, in pixels
    width: int  # channels of a token inside the network
    depth: int  # blocks
    heads: int  # of attention; each has width / heads channels
    mlp_ratio: int = 4  # hidden width of the MLP over width
    base_width: int | None = None
    """The width at which initialisation and learning rate are meant; others follow it by muP (arch/mup.py). None is
    the width itself, as published (B1)."""

    def __post_init__(self) -> None:
        for name in ("patch_size", "width", "depth", "heads", "mlp_ratio"):
            check_range(name, getattr(self, name))
        if self.base_width is not None and not 1 <= self.base_width <= LIMITS["width"]:
            raise ConfigError(
                f"base_width must be at least 1 and at most {LIMITS['width']:,}, or null for the width itself; "
                f"got {shortened(self.base_width)}"
            )
        if self.width % self.heads:
            raise ConfigError(f"width {self.width} is not a multiple of heads {self.heads}")
        if self.head_dim % 16:
            raise ConfigError(
                f"width / heads = {self.head_dim} is not a multiple of 16, which the three rotary axes "
                "(1/8, 7/16, 7/16 of it, each even) need; change width or heads"
            )

    @property
    def head_dim(self) -> int:
        return self.width // self.heads

    @property
    def width_multiplier(self) -> float:
        """Return width over base width, muP's one number; 1 without a base."""
        return self.width / (self.base_width or self.width)


@dataclass(frozen=True)
class QuantizerConfig:
    """How a latent becomes a code (Section 3.2)."""

    kind: Literal["lfq", "fsq", "bsq", "continuous"] = "lfq"
    """``lfq`` keeps signs, ``fsq`` rounds each channel to one of ``levels``, ``bsq`` keeps signs on the unit sphere,
    ``continuous`` only normalises."""
    temperature: float = 0.1  # of the entropy terms (A6)
    tanh_bound: bool = False  # whether the latent is bounded first (A.1 of the paper found it worse)
    levels: tuple[int, ...] = (8, 8, 8)  # fsq only: the levels of the channels of one group
    normalize: Literal["token", "latent"] = "token"
    """continuous only: whether LayerNorm is over each token or over the whole latent of an image (F6)."""
    straight_through: Literal["identity", "rotation"] = "identity"
    """lfq and bsq only: how the code's gradient reaches the latent, unchanged or by the rotation trick."""

    def __post_init__(self) -> None:
        if not 0 < self.temperature < math.inf:
            raise ConfigError(f"temperature must be positive, got {self.temperature}")
        if not self.levels or min(self.levels) < 2:
            raise ConfigError(f"every FSQ level must be at least 2, got {self.levels}")
        if len(self.levels) > 24 or max(self.levels) > 2**24:
            raise ConfigError("FSQ levels are at most 24 numbers of at most 2**24")
        if self.straight_through == "rotation" and self.kind not in ("lfq", "bsq"):
            raise ConfigError(f'straight_through "rotation" is for lfq and bsq, not for {self.kind}')

    @property
    def level_bits(self) -> int:
        """Return how many bits hold one group of FSQ channels."""
        return max(1, math.ceil(math.log2(math.prod(self.levels))))


@dataclass(frozen=True)
class SamplerConfig:
    """How a code becomes an image (Section 3.4, Appendix B): the values that ``detokenize`` uses by default."""

    num_steps: int = 25
    """n, steps from noise to image."""
    rho: float = 4.0
    """How much steps are bunched toward the image (Eq. 14); 1 is evenly, inf a single step from t = 1."""
    guidance_scale: float = 1.5
    """1 is no guidance."""
    guidance_interval: tuple[float, float] = (0.17 / 1.17, 1.02 / 2.02)
    """Noise levels t where guidance acts, ends included: sigma from 0.17 to 1.02 in the convention of EDM."""
    solver: Literal["euler", "heun"] = "euler"
    """Euler as published, or Heun, which asks twice a step and errs less."""

    def __post_init__(self) -> None:
        check_range("num_steps", self.num_steps)
        if not math.isfinite(self.guidance_scale):
            raise ConfigError(f"guidance_scale must be finite, got {self.guidance_scale}")
        if not self.rho > 0:
            raise ConfigError(f"rho must be positive (inf is one step from t = 1), got {self.rho}")
        low, high = self.guidance_interval
        if not 0 <= low <= high <= 1:
            raise ConfigError(f"guidance_interval must satisfy 0 <= low <= high <= 1, got {(low, high)}")


MOST_BITS = 6
"""Bits of a token that refine one component of its patch, at most."""


@dataclass(frozen=True)
class TransformConfig:
    """The transform start (arch/transform.py; O12): a token belongs to one patch and begins as its closed-form code."""

    patch_size: int
    """Side of the patch of one token, in pixels."""
    rates: tuple[int, ...]
    """Bits a token for which the decoder has a linear map of its own, rising; between them it interpolates."""
    class_bits: int = 5
    """Bits of a token that name the class of its patch, the first ones; 0 is a single class for all."""
    num_components: int = 128
    """Principal components by which a patch is described."""
    learned_encoder: bool = False
    """Whether a transformer adds to the components before they are quantized."""

    def __post_init__(self) -> None:
        if self.patch_size < 1 or not 1 <= self.num_components <= 3 * self.patch_size**2:
            raise ConfigError(
                "transform.patch_size must be at least 1, and transform.num_components at most the numbers of a patch"
            )
        if not 0 <= self.class_bits <= 10:
            raise ConfigError(f"transform.class_bits must be from 0 to 10, got {self.class_bits}")
        if not self.rates or list(self.rates) != sorted(set(self.rates)) or self.rates[0] < 1:
            raise ConfigError(f"transform.rates must rise from at least 1, got {self.rates}")


@dataclass(frozen=True)
class FlowMoConfig:
    """A whole tokenizer. The defaults of the four options after the sampler are the paper's (docs/DEVIATIONS.md)."""

    encoder: TransformerConfig  # e_theta
    decoder: TransformerConfig  # d_theta
    image_size: int = 256  # side of the images, in pixels
    num_tokens: int = 256  # N, tokens of one image
    bits_per_token: int = 18  # bits of one token, over all its groups
    bits_per_group: int = 9  # bits of one integer, whose joint entropy is counted
    quantizer: QuantizerConfig = field(default_factory=QuantizerConfig)  # how a latent becomes a code
    sampler: SamplerConfig = field(default_factory=SamplerConfig)  # how a code becomes an image by default
    prediction: Literal["velocity", "clean"] = "velocity"  # output of the decoder's network: velocity or clean image
    modulation: Literal["per_block", "shared"] = "per_block"
    """AdaLN weights in every block, or one set for all blocks plus a learned table per block."""
    initial_latent: Literal["zeros", "learned"] = "zeros"  # c_0 of Eq. 1: zeros, or one learned vector a token
    latent_positions: Literal["diagonal", "grid", "patches"] = "diagonal"
    """Rotary ids of the latent tokens: (i, i, i), or spread over the image's patch grid."""
    transform: TransformConfig | None = None  # the transform start (O12), or None

    def __post_init__(self) -> None:
        self._check_transform()
        for name in ("image_size", "num_tokens", "bits_per_token"):
            check_range(name, getattr(self, name))
        if not 1 <= self.bits_per_group <= 24:
            raise ConfigError(f"bits_per_group must be between 1 and 24, got {self.bits_per_group}")
        if self.bits_per_token % self.bits_per_group:
            raise ConfigError(
                f"bits_per_token {self.bits_per_token} is not a multiple of bits_per_group {self.bits_per_group}"
            )
        if self.quantizer.kind == "fsq" and self.quantizer.level_bits != self.bits_per_group:
            raise ConfigError(
                f"FSQ levels {self.quantizer.levels} need {self.quantizer.level_bits} bits a group, "
                f"but bits_per_group is {self.bits_per_group}; set them equal"
            )
        for name in ("encoder", "decoder"):
            patch = getattr(self, name).patch_size
            if self.image_size % patch:
                raise ConfigError(f"image_size {self.image_size} is not a multiple of the {name}'s patch size {patch}")
        if self.latent_positions == "grid" and math.isqrt(self.num_tokens) ** 2 != self.num_tokens:
            raise ConfigError(f'latent_positions "grid" needs a square number of tokens, got {self.num_tokens}')

    def _check_transform(self) -> None:
        t = self.transform
        if t is None:
            if self.latent_positions == "patches":
                raise ConfigError('latent_positions "patches" needs a transform, whose tokens belong to patches')
            return
        if self.quantizer.kind != "lfq" or self.prediction != "clean" or self.latent_positions != "patches":
            raise ConfigError(
                'a transform needs quantizer.kind "lfq", prediction "clean" and latent_positions "patches"'
            )
        if t.patch_size % self.decoder.patch_size:
            raise ConfigError(
                f"transform.patch_size {t.patch_size} is not a multiple of the decoder's patch size "
                f"{self.decoder.patch_size}"
            )
        if not t.class_bits < self.bits_per_token >= t.rates[-1]:
            raise ConfigError(
                f"bits_per_token {self.bits_per_token} must be above transform.class_bits {t.class_bits}, and at least "
                f"the last of transform.rates {t.rates}"
            )
        if self.bits_per_token - t.class_bits > MOST_BITS * t.num_components:
            raise ConfigError(
                f"transform.num_components {t.num_components} are too few for {self.bits_per_token} bits a token, of "
                f"which each component takes at most {MOST_BITS}"
            )
        if self.num_tokens != self.tokens_of((self.image_size, self.image_size)):
            raise ConfigError(
                f"num_tokens must be {self.tokens_of((self.image_size, self.image_size))}, one a patch of "
                f"{t.patch_size} pixels; got {self.num_tokens}"
            )

    def tokens_of(self, size: tuple[int, int]) -> int:
        """Return the tokens of an image of size (height, width): one a patch with a transform, else ``num_tokens``."""
        if self.transform is None:
            return self.num_tokens
        return (size[0] // self.transform.patch_size) * (size[1] // self.transform.patch_size)

    @property
    def num_groups(self) -> int:
        """Return G, the integers that make up one token."""
        return self.bits_per_token // self.bits_per_group

    @property
    def latent_dim(self) -> int:
        """Return K, the channels of the latent: one a bit for LFQ, one a rounded number for FSQ."""
        if self.quantizer.kind == "fsq":
            return self.num_groups * len(self.quantizer.levels)
        return self.bits_per_token

    @property
    def bits_per_pixel(self) -> float:
        """Return the bits that an image of ``image_size`` costs, divided by its pixels (Section 4.1)."""
        return self.num_tokens * self.bits_per_token / self.image_size**2


def to_dict(config: Any) -> dict[str, Any]:
    """Return a configuration as plain JSON data; tuples become lists and infinity a string."""

    def plain(value: Any) -> Any:
        if dataclasses.is_dataclass(value):
            return {f.name: plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
        if isinstance(value, (tuple, list)):
            return [plain(v) for v in value]
        if isinstance(value, float) and not math.isfinite(value):
            return str(value)
        return value

    return plain(config)


def from_dict(cls: type, data: dict[str, Any], where: str = "") -> Any:
    """Return the configuration of plain data, the inverse of :func:`to_dict`.

    Raises ConfigError for an unknown key, naming the nearest known one, and for an ill-typed value.
    """
    if not isinstance(data, dict):
        raise ConfigError(f"{where or cls.__name__}: expected a table of settings, got {shortened(data)}")
    hints = typing.get_type_hints(cls)
    names = [f.name for f in dataclasses.fields(cls)]
    values = {}
    for key, value in data.items():
        key = key if key in names else RENAMED.get(key, key)
        if key not in names:
            raise ConfigError(unknown_setting(where + key, [where + n for n in names]))
        values[key] = _coerce(hints[key], value, where + key)
    try:
        return cls(**values)
    except (TypeError, ValueError, OverflowError) as error:
        raise ConfigError(f"{where or cls.__name__}: {error}") from None


def to_json(config: Any) -> str:
    """Return a configuration as JSON text."""
    return json.dumps(to_dict(config), indent=2)


def from_json(cls: type, text: str) -> Any:
    """Return the configuration of JSON text, the inverse of :func:`to_json`. Raises ConfigError."""
    try:
        data = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"the configuration is not valid JSON: {error}") from None
    return from_dict(cls, data)


def override(config: Any, settings: list[str]) -> Any:
    """Return a copy with dotted settings applied: ``override(c, ["decoder.depth=6", "prediction=clean"])``."""
    data = to_dict(config)
    for setting in settings:
        path, equals, text = setting.partition("=")
        if not equals:
            raise ConfigError(f"{setting!r} is not of the form name=value")
        *parents, leaf = path.split(".")
        table = data
        for parent in parents:
            if not isinstance(table.get(parent), dict):
                raise ConfigError(unknown_setting(path, _paths(data)))
            table = table[parent]
        leaf = leaf if leaf in table else RENAMED.get(leaf, leaf)
        if leaf not in table:
            raise ConfigError(unknown_setting(path, _paths(data)))
        try:
            number = re.fullmatch(r"[\d_.eE+-]+", text)  # 1_000 too
            table[leaf] = json.loads(re.sub(r"(?<=\d)_(?=\d)", "", text) if number else text)
        except (ValueError, RecursionError):
            table[leaf] = text
    return from_dict(type(config), data)


def _paths(data: dict[str, Any], prefix: str = "") -> list[str]:
    paths = []
    for key, value in data.items():
        paths += _paths(value, f"{prefix}{key}.") if isinstance(value, dict) else [prefix + key]
    return paths


def _coerce(hint: Any, value: Any, where: str) -> Any:
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if isinstance(hint, type) and dataclasses.is_dataclass(hint):
        return value if isinstance(value, hint) else from_dict(hint, value, where + ".")
    if origin is Literal:
        if value not in args:
            raise ConfigError(f"{where} must be one of {', '.join(map(str, args))}; got {shortened(value)}")
        return value
    if origin in (typing.Union, types.UnionType):
        if value is None and type(None) in args:
            return None
        if isinstance(value, bool) and bool in args:
            return value
        return _coerce(next(a for a in reversed(args) if a is not type(None)), value, where)
    if origin is tuple:
        if not isinstance(value, (list, tuple)):
            raise ConfigError(f"{where} must be a list, got {shortened(value)}")
        kinds = [args[0]] * len(value) if args[-1] is Ellipsis else list(args)
        if len(kinds) != len(value):
            raise ConfigError(f"{where} must have {len(kinds)} entries, got {shortened(value)}")
        return tuple(_coerce(k, v, where) for k, v in zip(kinds, value, strict=True))
    if hint is float and isinstance(value, str) and value in ("inf", "Infinity"):
        return math.inf
    if hint is float and isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**1000:
        return float(value)
    if hint is float and isinstance(value, float) and math.isnan(value):
        raise ConfigError(f"{where} must be a number, got {shortened(value)}")
    if hint is int and isinstance(value, float) and value.is_integer():  # 1e6 of a command line
        return int(value)
    if not isinstance(value, hint) or (isinstance(value, bool) and hint is not bool):
        raise ConfigError(f"{where} must be {hint.__name__}, got {shortened(value)}")
    return value


def shortened(value: Any) -> str:
    """Return a value of a file for a message, at most 100 letters of it."""
    try:
        text = repr(value)
    except ValueError:  # Python writes no whole numbers of more than 4,300 digits
        return "a number of thousands of digits"
    return text if len(text) <= 100 else f"{text[:97]}..."
