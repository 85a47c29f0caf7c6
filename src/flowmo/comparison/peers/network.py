"""Networks of other tokenizers share this interface, strict keys, and the blocks of VQGAN-like autoencoders."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...errors import ImageError, WeightsError

State = Mapping[str, Tensor]
Levels = Any
"""A ModuleList of ModuleDicts, which its type does not say."""


class PeerNetwork(nn.Module, ABC):
    """A published tokenizer: image -> latent -> indices -> codes -> image, each step as the authors' network has it.

    A subclass gives ``latent``, ``indices``, ``codes`` and ``pixels``.
    """

    unit_range = False  # True where images are [0, 1] inside, not [-1, 1]
    factor: int  # pixels to a side of a token's cell; sides of images must be multiples of it
    num_codes: int  # indices run from 0 to one less
    ignored: tuple[str, ...] = ()  # patterns of keys that published files hold and no output depends on

    @property
    def bits_per_token(self) -> int:
        """Return the bits of an index."""
        return (self.num_codes - 1).bit_length()

    @abstractmethod
    def latent(self, x: Tensor) -> Tensor:
        """Return the latents B C h w, before quantization, of images B 3 H W in the network's own range."""

    @abstractmethod
    def indices(self, latent: Tensor) -> Tensor:
        """Return the integers B h w that latents B C h w are quantized to."""

    @abstractmethod
    def codes(self, indices: Tensor) -> Tensor:
        """Return the codes B C h w, which the decoder is given, of integers B h w."""

    @abstractmethod
    def pixels(self, codes: Tensor) -> Tensor:
        """Return the images B 3 H W of codes B C h w, in the network's own range and not clipped."""

    def check_size(self, height: int, width: int) -> None:
        """Raise ImageError for images of a size that this network does not take."""
        if height % self.factor or width % self.factor:
            raise ImageError(
                f"{type(self).__name__} takes sides that are multiples of {self.factor} pixels, not {height} x {width}"
            )

    @torch.no_grad()
    def tokenize(self, images: Tensor) -> Tensor:
        """Return the tokens of images B 3 H W in [-1, 1] as integers B h w."""
        return self.indices(self.latent((images + 1) / 2 if self.unit_range else images))

    @torch.no_grad()
    def detokenize(self, indices: Tensor) -> Tensor:
        """Return the images B 3 H W in [-1, 1] of tokens, integers B h w."""
        return self.decode(self.codes(indices))

    @torch.no_grad()
    def decode(self, codes: Tensor) -> Tensor:
        """Return the images B 3 H W in [-1, 1] of codes B C h w."""
        pixels = self.pixels(codes)
        return (2 * pixels - 1 if self.unit_range else pixels).clamp(-1, 1)

    def load(self, state: State, where: str) -> None:
        """Take the weights over, in float32, and freeze them in evaluation mode.

        Raises WeightsError that names a key: missing, unknown or misshapen.
        """
        known = self.state_dict()
        given = {k: v for k, v in state.items() if not any(re.fullmatch(pattern, k) for pattern in self.ignored)}
        missing, unknown = sorted(known.keys() - given.keys()), sorted(given.keys() - known.keys())
        if missing:
            raise WeightsError(f"{where} lacks {_some(missing)} of {type(self).__name__}")
        if unknown:
            raise WeightsError(f"{where} holds {_some(unknown)}, which {type(self).__name__} does not have")
        for key, value in known.items():
            if given[key].shape != value.shape:
                raise WeightsError(f"{where}: {key} is {tuple(given[key].shape)} and should be {tuple(value.shape)}")
        self.load_state_dict({key: given[key].float() for key in known}, assign=True)
        self.requires_grad_(False).eval()


class Shapes:
    """The shapes of a state dict, from which a network's configuration is read.

    A call with a key returns the shape of its tensor. Raises WeightsError for a key that is not there.
    """

    def __init__(self, state: State, where: str) -> None:
        self.state, self.where = state, where

    def __call__(self, key: str) -> torch.Size:
        if key not in self.state:
            raise WeightsError(f"{self.where} lacks {key}; is it the file of another network?")
        return self.state[key].shape

    def count(self, prefix: str) -> int:
        """Return how many modules are numbered right after ``prefix``. Raises WeightsError for none, or for a gap."""
        pattern = re.compile(re.escape(prefix) + r"\.(\d+)\.")
        found = {int(match[1]) for key in self.state if (match := pattern.match(key))}
        if found != set(range(len(found))) or not found:
            raise WeightsError(f"{self.where} lacks a part of {prefix}.*; is it the file of another network?")
        return len(found)

    def widths(self, levels: str, blocks: str) -> list[int]:
        """Return the channels of the levels at ``levels``.0, .1 ..., by the first of their residual ``blocks``."""
        return [self(f"{levels}.{i}.{blocks}.0.conv1.weight")[0] for i in range(self.count(levels))]


class Residual(nn.Module):
    """Norm, SiLU and convolution, twice, added to the input.

    bias: of the convolutions.
    Where channels change, a 1 x 1 convolution of the input is added in place of the input.
    shortcut_of_output: that convolution is of the block's own output, and the input is dropped (TiTok and MaskBit).
    """

    def __init__(self, width_in: int, width: int, bias: bool = True, shortcut_of_output: bool = False) -> None:
        super().__init__()
        self.norm1, self.norm2 = norm(width_in), norm(width)
        self.conv1 = nn.Conv2d(width_in, width, 3, padding=1, bias=bias)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=bias)
        self.shortcut_of_output = shortcut_of_output
        if width_in != width:
            self.nin_shortcut = nn.Conv2d(width if shortcut_of_output else width_in, width, 1, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        h = self.conv1(F.silu(self.norm1(x)))
        h = self.conv2(F.silu(self.norm2(h)))
        if not hasattr(self, "nin_shortcut"):
            return x + h
        return h + self.nin_shortcut(h if self.shortcut_of_output else x)


class Attention(nn.Module):
    """Single-head self-attention over all positions, added to the input."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = norm(width)
        self.q, self.k, self.v, self.proj_out = (nn.Conv2d(width, width, 1) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(x)
        q, k, v = (f(y).flatten(2).transpose(1, 2) for f in (self.q, self.k, self.v))  # B hw C
        return x + self.proj_out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(x.shape))


class Downsample(nn.Module):
    """A 3 x 3 convolution of stride 2, padded on the right and at the bottom only."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(width, width, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(pad_right_bottom(x))


class Upsample(nn.Module):
    """Repetition to twice the size, then a 3 x 3 convolution."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(double(x))


class Table(nn.Module):
    """The rows of a codebook."""

    def __init__(self, rows: int, width: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(rows, width)


def norm(width: int) -> nn.GroupNorm:
    """Return the group normalisation that all these networks have: 32 groups, epsilon 1e-6."""
    return nn.GroupNorm(32, width, eps=1e-6)


def residuals(width_in: int, width: int, count: int, bias: bool = True, of_output: bool = False) -> nn.ModuleList:
    """Return ``count`` residual blocks, of which the first changes the channels."""
    return nn.ModuleList(Residual(width_in if i == 0 else width, width, bias, of_output) for i in range(count))


def run(blocks: Iterable[nn.Module], x: Tensor) -> Tensor:
    """Return the output of the blocks, run one after another."""
    for block in blocks:
        x = block(x)
    return x


def pad_right_bottom(x: Tensor) -> Tensor:
    """Return B C h+1 w+1 with zeros on the right and at the bottom of B C h w."""
    return F.pad(x, (0, 1, 0, 1))


def double(x: Tensor) -> Tensor:
    """Return B C 2h 2w, in which each position of B C h w is repeated."""
    return F.interpolate(x, scale_factor=2, mode="nearest")


def nearest_row(vectors: Tensor, table: Tensor) -> Tensor:
    """Return the row of a table N C nearest to each vector of B C h w, as integers B h w, the first of equals."""
    flat = vectors.movedim(1, -1).flatten(0, -2)
    distance = flat.square().sum(1, keepdim=True) + table.square().sum(1) - 2 * flat @ table.T
    return distance.argmin(1).view(vectors.shape[0], *vectors.shape[2:])


def bits_to_indices(latent: Tensor) -> Tensor:
    """Return the signs of B C h w as integers B h w.

    A bit is 1 where the channel is strictly above 0; channel 0 is the least significant one.
    """
    weights = 2 ** torch.arange(latent.shape[1], device=latent.device)
    return ((latent > 0).movedim(1, -1) * weights).sum(-1)


def indices_to_bits(indices: Tensor, bits: int) -> Tensor:
    """Return B C h w of -1 and 1 from integers B h w, the inverse of :func:`bits_to_indices`."""
    return ((indices[..., None] >> torch.arange(bits, device=indices.device)) & 1).movedim(-1, 1) * 2.0 - 1


def _some(keys: list[str], count: int = 3) -> str:
    return ", ".join(keys[:count]) + (f" and {len(keys) - count} more keys" if len(keys) > count else "")
