"""Section 3.2, bits <-> integer tokens <-> bytes: what an image is between the encoder and the decoder.

Every integer is written with ``bits_per_group`` bits, the least significant first (A8), and the integers follow one
another token-major, then by group. ``docs/FORMAT.md`` shows the order bit by bit.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np
import torch
from torch import Tensor

from ..config import LIMITS, check_range, shortened
from ..errors import ConfigError, TokenFileError
from ..files import replacing, user_path
from ..image_utils import to_pil
from ..untrusted import load_arrays

if TYPE_CHECKING:
    from PIL import Image

MAX_BITS_PER_GROUP = 24
INTEGERS = (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.uint16, torch.uint32, torch.uint64)

BitOrder = Literal["published", "consecutive"]
"""Which bits of a token one integer holds: the published ones (A8), or such as follow one another (groups.py)."""


class Detokenizer(Protocol):
    """A model that makes images of tokens."""

    def detokenize(self, tokens: Tokens, **settings: Any) -> Tensor:
        """Return the images B 3 H W in [-1, 1] of tokens."""
        ...


@dataclass(frozen=True, eq=False)
class Tokens:
    """The tokens of B images, N tokens of G integers each.

    Raises ConfigError for another shape or type, or an integer out of range.
    """

    indices: Tensor  # B N G, each in [0, 2**bits_per_group); any integer type is taken and kept as int64
    bits_per_group: int  # bits of one integer
    image_size: tuple[int, int]  # (height, width) in pixels of the images that they stand for

    def __post_init__(self) -> None:
        check_bits_per_group(self.bits_per_group)
        object.__setattr__(self, "image_size", check_size(self.image_size, "image_size"))
        if not isinstance(self.indices, Tensor) or self.indices.dtype not in INTEGERS:
            found = self.indices.dtype if isinstance(self.indices, Tensor) else type(self.indices).__name__
            raise ConfigError(
                f"token indices must be a tensor of integers, got {found}; Tokens.from_numpy takes arrays"
            )
        if self.indices.ndim != 3 or 0 in self.indices.shape[1:]:
            raise ConfigError(
                "token indices must have the shape images x tokens x groups, with at least one token and one group; "
                f"got {tuple(self.indices.shape)}"
            )
        indices = self.indices.to(torch.int64)
        _check_range(indices, self.bits_per_group)
        object.__setattr__(self, "indices", indices)

    def __repr__(self) -> str:
        height, width = self.image_size
        return (
            f"Tokens(images={self.num_images}, num_tokens={self.num_tokens}, num_groups={self.num_groups}, "
            f"bits_per_group={self.bits_per_group}, image_size=({height}, {width})): "
            f"{payload_size(self.num_tokens, self.bits_per_token)} bytes an image"
        )

    @property
    def num_images(self) -> int:
        """Return B, the images."""
        return self.indices.shape[0]

    @property
    def num_tokens(self) -> int:
        """Return N, the tokens of one image."""
        return self.indices.shape[1]

    @property
    def num_groups(self) -> int:
        """Return G, the integers of one token."""
        return self.indices.shape[2]

    @property
    def bits_per_token(self) -> int:
        """Return the bits of one token, over all its groups."""
        return self.num_groups * self.bits_per_group

    @property
    def bits_per_image(self) -> int:
        """Return the bits of one image's tokens, no header."""
        return self.num_tokens * self.bits_per_token

    @property
    def bits_per_pixel(self) -> float:
        """Return the bits of the tokens alone, no header, divided by the pixels of ``image_size`` (Section 4.1)."""
        height, width = self.image_size
        return self.bits_per_image / (height * width)

    def truncate(self, bits: int) -> Tokens:
        """Return the first ``bits`` of every token, a code at a lower rate where bits are in order of importance.

        Raises ConfigError for more bits than there are, or for a part of a group.
        """
        if bits % self.bits_per_group or not 0 < bits <= self.bits_per_token:
            raise ConfigError(
                f"a token of {self.bits_per_token} bits can be cut to a multiple of {self.bits_per_group}, at most all "
                f"of them; got {bits}"
            )
        return Tokens(self.indices[:, :, : bits // self.bits_per_group], self.bits_per_group, self.image_size)

    def __len__(self) -> int:
        return self.num_images

    def __getitem__(self, key: int | slice | Sequence[int] | np.ndarray | Tensor) -> Tokens:
        """Return one image, a slice, a list of positions or a mask of them, always as Tokens.

        An integer gives B = 1.
        Raises IndexError past the end.
        """
        rows = np.arange(len(self))[key.tolist() if isinstance(key, Tensor) else key]
        if rows.ndim > 1:
            raise IndexError("Tokens are indexed by image alone; .indices is the tensor B N G")
        return Tokens(self.indices[rows.reshape(-1).tolist()], self.bits_per_group, self.image_size)

    def __iter__(self) -> Iterator[Tokens]:
        return (self[i] for i in range(len(self)))

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        """Return what ``numpy.asarray`` makes of them: :meth:`numpy`."""
        return self.numpy() if dtype is None else self.numpy().astype(dtype)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Tokens):
            return NotImplemented
        same = (self.bits_per_group, self.image_size) == (other.bits_per_group, other.image_size)
        return same and torch.equal(self.indices, other.indices)

    __hash__ = None  # type: ignore[assignment]  # compared by content, like a list

    @classmethod
    def concatenate(cls, parts: Sequence[Tokens]) -> Tokens:
        """Return the images of all parts, in order. Raises ConfigError where they are none or do not go together."""
        if not parts:
            raise ConfigError("there are no tokens to concatenate")
        first = parts[0]
        for part in parts:
            if not isinstance(part, Tokens):
                raise ConfigError(f"only Tokens are concatenated, not an object of the type {type(part).__name__}")
            ours, theirs = ((t.num_tokens, t.num_groups, t.bits_per_group, t.image_size) for t in (first, part))
            if ours != theirs:
                raise ConfigError(
                    f"tokens of different kinds do not go together: {ours} and {theirs} tokens, groups, bits and size"
                )
        return cls(torch.cat([part.indices.to(first.indices.device) for part in parts]), ours[2], ours[3])

    def numpy(self) -> np.ndarray:
        """Return the integers as an array B N G of the smallest unsigned type that holds them."""
        return self.indices.cpu().numpy().astype(smallest_unsigned(self.bits_per_group))

    @classmethod
    def from_numpy(
        cls,
        array: np.ndarray,
        bits_per_group: int,
        image_size: tuple[int, int],
        bit_order: BitOrder = "published",
    ) -> Tokens:
        """Return the tokens of an array B N G of any integer type; the inverse of :meth:`numpy`.

        bit_order: ``consecutive`` takes integers of bits that follow one another, as ``flowmo tokenize --out NAME.npy``
        writes them for a model of any rate; the tokens are then of single bits, as that model has them.
        Raises ConfigError.
        """
        if not isinstance(array, np.ndarray) or array.dtype.kind not in "iu":
            raise ConfigError(
                f"token indices must be an array of integers, got {getattr(array, 'dtype', type(array))}; a tensor is "
                "given to Tokens(...) itself"
            )
        tokens = cls(torch.from_numpy(array.astype(np.int64)), bits_per_group, image_size)
        if bit_order == "published":
            return tokens
        return cls(bits_from_integers(tokens.indices, bits_per_group).flatten(2), 1, image_size)

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the tokens to an ``.npz`` file, all of it or nothing, and return its path.

        For exchange with a fingerprint of the model, names and labels, write .flowmo files or a shard (docs/FORMAT.md).
        """
        path = user_path(path)
        if path.suffix != ".npz":
            raise ConfigError(f"{path}: the name of a file of tokens ends in .npz")
        with replacing(path) as part, part.open("wb") as file:
            np.savez(file, tokens=self.numpy(), bits_per_group=self.bits_per_group, image_size=self.image_size)
        return path

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Tokens:
        """Return the tokens of an ``.npz`` file; the inverse of :meth:`save`.

        Nothing in the file is executed. Raises TokenFileError for another file.
        """
        try:
            arrays = load_arrays(user_path(path), ("tokens", "bits_per_group", "image_size"))
            height, width = (int(side) for side in arrays["image_size"])
            return cls.from_numpy(arrays["tokens"], int(arrays["bits_per_group"]), (height, width))
        except FileNotFoundError:
            raise TokenFileError(f"there is no file {os.fspath(path)}") from None
        except Exception:  # a damaged archive can raise anything, and NumPy's own words recommend what executes files
            raise TokenFileError(
                f"{os.fspath(path)} is no file of Tokens.save, or is damaged; 'flowmo info' says what a file is, and "
                "'flowmo detokenize' reads .flowmo files and shards"
            ) from None

    def to_images(self, model: Detokenizer, **settings: Any) -> Tensor:
        """Return ``model.detokenize(self)``: images B 3 H W in [-1, 1]; settings such as seed and num_steps."""
        return model.detokenize(self, **settings)

    def to_pil(self, model: Detokenizer, **settings: Any) -> list[Image.Image]:
        """Return the images as Pillow's, one each; as :meth:`to_images`."""
        return to_pil(self.to_images(model, uint8=True, **settings))

    def to_bytes(self) -> list[bytes]:
        """Return one packed payload an image, ``payload_size`` bytes each: 256 tokens of 18 bits are 576 bytes."""
        bits = bits_from_integers(self.indices.cpu(), self.bits_per_group)  # B N G bits
        packed = np.packbits(bits.flatten(1).numpy(), axis=1, bitorder="little")
        return [row.tobytes() for row in packed]

    @classmethod
    def from_bytes(
        cls,
        payloads: Sequence[bytes],
        num_tokens: int,
        bits_per_token: int,
        bits_per_group: int,
        image_size: tuple[int, int],
    ) -> Tokens:
        """Return the tokens of payloads, on the CPU; the inverse of :meth:`to_bytes`.

        Raises TokenFileError where a payload has the wrong length or bits set after its last token, ConfigError
        where the numbers do not describe tokens.
        """
        check_bits_per_group(bits_per_group)
        for name, value in (("num_tokens", num_tokens), ("bits_per_token", bits_per_token)):
            if not _is_int(value) or value < 1:
                raise ConfigError(f"{name} must be a whole number of at least 1, got {value!r}")
        if bits_per_token % bits_per_group:
            raise ConfigError(f"bits_per_token {bits_per_token} is not a multiple of bits_per_group {bits_per_group}")
        if isinstance(payloads, (bytes, bytearray, memoryview)):
            raise ConfigError("from_bytes takes a list with one payload an image; put the bytes in a list")

        size, num_bits = payload_size(num_tokens, bits_per_token), num_tokens * bits_per_token
        for i, payload in enumerate(payloads):
            if len(payload) != size:
                raise TokenFileError(
                    f"payload {i} has {len(payload)} bytes, but {num_tokens} tokens of {bits_per_token} bits take "
                    f"{size}; it is truncated, or was made with other settings"
                )
        packed = np.frombuffer(b"".join(payloads), dtype=np.uint8).reshape(len(payloads), size)
        used = num_bits % 8  # bits of the last byte; 0 when it is full
        if used and (packed[:, -1] >> used).any():
            raise TokenFileError("bits are set after the last token of a payload; it is damaged or not a token payload")
        bits = torch.from_numpy(np.unpackbits(packed, axis=1, count=num_bits, bitorder="little"))
        indices = integers_from_bits(bits.unflatten(1, (num_tokens, -1, bits_per_group)))
        return cls(indices, bits_per_group, image_size)


def smallest_unsigned(bits: int) -> np.dtype:
    """Return the smallest of uint8, uint16 and uint32 that holds integers of so many bits."""
    return np.dtype(np.uint8 if bits <= 8 else np.uint16 if bits <= 16 else np.uint32)


def payload_size(num_tokens: int, bits_per_token: float) -> int:
    """Return how many bytes hold the tokens of one image, the last byte filled up with zero bits."""
    return int(-(-num_tokens * bits_per_token // 8))


def bits_from_integers(indices: Tensor, bits_per_group: int) -> Tensor:
    """Return the bits (..., bits_per_group) of integers (...), uint8, least significant first.

    Raises ConfigError for an integer outside [0, 2**bits_per_group).
    """
    check_bits_per_group(bits_per_group)
    indices = indices.to(torch.int64)
    _check_range(indices, bits_per_group)
    return torch.stack([(indices >> bit & 1).to(torch.uint8) for bit in range(bits_per_group)], dim=-1)


def integers_from_bits(bits: Tensor) -> Tensor:
    """Return the integers int64 (...) of bits (..., n); the inverse of :func:`bits_from_integers`.

    Any non-zero entry counts as 1.
    """
    check_bits_per_group(bits.shape[-1])
    integers = torch.zeros(bits.shape[:-1], dtype=torch.int64, device=bits.device)
    for bit in range(bits.shape[-1]):
        integers |= (bits[..., bit] != 0).to(torch.int64) << bit
    return integers


def check_bits_per_group(bits: Any) -> None:
    """Raise ConfigError unless ``bits`` is a whole number from 1 to 24."""
    if not _is_int(bits) or not 1 <= bits <= MAX_BITS_PER_GROUP:
        raise ConfigError(
            f"bits_per_group must be a whole number from 1 to {MAX_BITS_PER_GROUP}, got {shortened(bits)}"
        )


def check_size(size: Any, name: str) -> tuple[int, int]:
    """Return a pair of whole numbers of at least 1, height first, as a tuple; an image_size has a limit too.

    Raises ConfigError for anything else.
    """
    if not isinstance(size, (tuple, list)) or len(size) != 2 or not all(_is_int(side) and side >= 1 for side in size):
        raise ConfigError(f"{name} must be (height, width) in whole pixels, each at least 1; got {shortened(size)}")
    for side in size if name in LIMITS else ():
        check_range(name, side)
    return size[0], size[1]


def _is_int(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _check_range(indices: Tensor, bits_per_group: int) -> None:
    if indices.numel() and (indices.min() < 0 or indices.max() >= 2**bits_per_group):
        raise ConfigError(
            f"token indices of {bits_per_group} bits lie between 0 and {2**bits_per_group - 1}, "
            f"got {int(indices.min())} to {int(indices.max())}; was bits_per_group meant to be larger?"
        )
