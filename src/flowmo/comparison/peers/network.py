"""What the networks of other tokenizers share: one face, strict keys, and the blocks of VQGAN-like autoencoders."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...errors import ImageError, WeightsError

State = Mapping[str, Tensor]
Levels = Any
"""A ModuleList of ModuleDicts, which its type does not say."""


class PeerNetwork(nn.Module):
    """Image -> latent -> indices -> codes -> image, each step as the authors' network has it.

    A subclass gives ``latent``, ``indices``, ``codes`` and ``pixels``. unit_range: images are [0, 1] inside, not
    [-1, 1]. factor: pixels to a side of a token's cell; images must be multiples of it. num_codes: indices run
    from 0 to one less. ignored: patterns of keys that published files hold and no output depends on.
    """

    unit_range = False
    factor: int
    num_codes: int
    ignored: tuple[str, ...] = ()

    @property
    def bits_per_token(self) -> int:
        """Of an index."""
        return (self.num_codes - 1).bit_length()

    def latent(self, x: Tensor) -> Tensor:
        """Images B 3 H W in the network's own range -> what is quantized, B C h w."""
        raise NotImplementedError

    def indices(self, latent: Tensor) -> Tensor:
        """B C h w -> integers B h w."""
        raise NotImplementedError

    def codes(self, indices: Tensor) -> Tensor:
        """Integers B h w -> B C h w."""
        raise NotImplementedError

    def pixels(self, codes: Tensor) -> Tensor:
        """B C h w -> images B 3 H W in the network's own range, not clipped."""
        raise NotImplementedError

    def check_size(self, height: int, width: int) -> None:
        """Raises ImageError for images that this network does not take."""
        if height % self.factor or width % self.factor:
            raise ImageError(
                f"{type(self).__name__} takes sides that are multiples of {self.factor} pixels, not {height} x {width}"
            )

    @torch.no_grad()
    def tokenize(self, images: Tensor) -> Tensor:
        """images B 3 H W in [-1, 1] -> integers B h w."""
        return self.indices(self.encode(images))

    @torch.no_grad()
    def detokenize(self, indices: Tensor) -> Tensor:
        """Integers B h w -> images B 3 H W in [-1, 1]."""
        return self.decode(self.codes(indices))

    @torch.no_grad()
    def encode(self, images: Tensor) -> Tensor:
        """images B 3 H W in [-1, 1] -> what is quantized, B C h w."""
        return self.latent((images + 1) / 2 if self.unit_range else images)

    @torch.no_grad()
    def decode(self, codes: Tensor) -> Tensor:
        """B C h w -> images B 3 H W in [-1, 1]."""
        pixels = self.pixels(codes)
        return (2 * pixels - 1 if self.unit_range else pixels).clamp(-1, 1)

    def load(self, state: State, where: str) -> None:
        """Take the weights over, in float32. Raises WeightsError that names a key: missing, unknown, misshapen."""
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
    """The configuration of a network as its state dict shows it. Reading what is not there raises WeightsError."""

    def __init__(self, state: State, where: str) -> None:
        self.state, self.where = state, where

    def __call__(self, key: str) -> torch.Size:
        if key not in self.state:
            raise WeightsError(f"{self.where} lacks {key}; is it the file of another network?")
        return self.state[key].shape

    def count(self, prefix: str) -> int:
        """How many modules are numbered right after ``prefix``. Raises WeightsError for none, or with a gap."""
        pattern = re.compile(re.escape(prefix) + r"\.(\d+)\.")
        found = {int(match[1]) for key in self.state if (match := pattern.match(key))}
        if found != set(range(len(found))) or not found:
            raise WeightsError(f"{self.where} lacks a part of {prefix}.*; is it the file of another network?")
        return len(found)

    def widths(self, levels: str, blocks: str) -> list[int]:
        """Channels of the levels at ``levels``.0, .1 ..., by the first of their residual ``blocks``."""
        return [self(f"{levels}.{i}.{blocks}.0.conv1.weight")[0] for i in range(self.count(levels))]


class Residual(nn.Module):
    """Norm, SiLU and convolution, twice, added to the input.

    bias: of the convolutions. Where channels change, a 1 x 1 convolution of the input is added to; with
    ``shortcut_of_output`` it is one of the block's own output instead, and the input is dropped (TiTok and MaskBit).
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
    """Twice the size by repetition, then a 3 x 3 convolution."""

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
    """Group normalisation as all these networks have it: 32 groups, epsilon 1e-6."""
    return nn.GroupNorm(32, width, eps=1e-6)


def residuals(width_in: int, width: int, count: int, bias: bool = True, of_output: bool = False) -> nn.ModuleList:
    """``count`` blocks, of which the first changes the channels."""
    return nn.ModuleList(Residual(width_in if i == 0 else width, width, bias, of_output) for i in range(count))


def run(blocks: Iterable[nn.Module], x: Tensor) -> Tensor:
    """The blocks one after another."""
    for block in blocks:
        x = block(x)
    return x


def pad_right_bottom(x: Tensor) -> Tensor:
    return F.pad(x, (0, 1, 0, 1))


def double(x: Tensor) -> Tensor:
    """B C h w -> B C 2h 2w by repetition."""
    return F.interpolate(x, scale_factor=2, mode="nearest")


def nearest_row(vectors: Tensor, table: Tensor) -> Tensor:
    """vectors B C h w, table N C -> the row nearest to each vector, B h w, the first of equals."""
    flat = vectors.movedim(1, -1).flatten(0, -2)
    distance = flat.square().sum(1, keepdim=True) + table.square().sum(1) - 2 * flat @ table.T
    return distance.argmin(1).view(vectors.shape[0], *vectors.shape[2:])


def bits_to_indices(latent: Tensor) -> Tensor:
    """The signs of B C h w, channel 0 the least significant bit, 1 where strictly above 0 -> B h w."""
    weights = 2 ** torch.arange(latent.shape[1], device=latent.device)
    return ((latent > 0).movedim(1, -1) * weights).sum(-1)


def indices_to_bits(indices: Tensor, bits: int) -> Tensor:
    """Inverse of :func:`bits_to_indices`: B h w -> B C h w of -1 and 1."""
    return ((indices[..., None] >> torch.arange(bits, device=indices.device)) & 1).movedim(-1, 1) * 2.0 - 1


def _some(keys: list[str], count: int = 3) -> str:
    return ", ".join(keys[:count]) + (f" and {len(keys) - count} more keys" if len(keys) > count else "")
