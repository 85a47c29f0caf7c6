"""Stage 2, data: shards of integer tokens with labels, wherever they come from, as training batches (Appendix A.3)."""

from __future__ import annotations

import glob
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

import numpy as np
import torch
from torch import Tensor

from ..codec import is_shard, read_shard
from ..errors import DataError, TokenFileError
from ..files import user_path
from ..generation import TokenLayout, to_sequence


@dataclass(frozen=True)
class TokenSet:
    """Tokens of one tokenizer, with labels."""

    sequences: np.ndarray  # uint8, uint16 or int32 (n, L)
    labels: np.ndarray  # int64 (n,)
    names: Sequence[str]  # of the images
    layout: TokenLayout  # as the shards have them
    bits_per_group: int  # of the integers here
    classes: list[str]  # names of the labels, or none
    described: str  # what the data are, in words

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def num_classes(self) -> int:
        """The number of names, or the largest label and one."""
        return len(self.classes) or int(self.labels.max()) + 1

    def describe(self) -> str:
        """Return what the data are, in words."""
        return self.described

    def rows(self, indices: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Return tokens int64 B L and labels int64 (B,)."""
        tokens = torch.from_numpy(self.sequences[indices].astype(np.int64))
        return tokens, torch.from_numpy(self.labels[indices])


def read_token_set(
    path: str | Path, bits_per_group: int | None = None, class_names: Sequence[str] | None = None
) -> TokenSet:
    """Return the shards that ``path`` names, read whole: a file, a folder of them, or a pattern.

    bits_per_group: of the sequences, those of the shards by default. class_names: instead of those in the shards.
    Raises DataError, naming the file, for shards without labels or of several tokenizers, and for labels that do not
    fit the names; TokenFileError for a damaged one.
    """
    files = shard_files(path)
    parts: list[np.ndarray] = []
    labels: list[np.ndarray] = []
    names: list[str] = []
    first: tuple[TokenLayout, list[str] | None] | None = None
    for file in files:
        shard = read_shard(file)
        tokens = shard.tokens
        layout = TokenLayout(
            f"{shard.fingerprint:08x}",
            tokens.num_tokens,
            tokens.bits_per_token,
            tokens.bits_per_group,
            tokens.image_size,
        )
        if first is None:
            first = layout, shard.classes
        _check_same(files[0], *first, file, layout, shard.classes)
        if shard.labels is None:
            raise DataError(
                f"{file}: has no labels, which a generator is trained with; write them by 'flowmo tokenize --labels'"
            )
        bits = bits_per_group or layout.bits_per_group
        kind = np.uint8 if bits <= 8 else np.uint16 if bits <= 16 else np.int32
        parts.append(to_sequence(tokens, bits).numpy().astype(kind))
        labels.append(shard.labels.numpy())
        names += shard.names
    assert first is not None
    layout, classes = first
    found = np.concatenate(labels)
    if not len(found):
        raise DataError(f"{path}: the shards hold no images")
    if found.min() < 0:
        raise DataError(f"{path}: labels are counted from 0, got {found.min()}")
    if class_names is not None and found.max() >= len(class_names):
        raise DataError(f"{len(class_names)} names of classes do not fit labels up to {found.max()}, counted from 0")
    return TokenSet(
        np.concatenate(parts),
        found,
        names,
        layout,
        bits,
        list(class_names if class_names is not None else classes or []),
        f"{len(found):,} images of {len(np.unique(found))} classes in {len(files)} shard{'s' * (len(files) > 1)} "
        f"of {files[0].parent}",
    )


def shard_files(path: str | Path) -> list[Path]:
    """Return the shards that a file, a folder or a pattern means, sorted. Raises DataError where there is none."""
    where = user_path(path)
    if where.is_file():
        return [where]
    if where.is_dir():
        files = sorted(file for file in where.iterdir() if file.is_file() and is_shard(file))
    else:
        files = sorted(Path(name) for name in glob.glob(str(where)))
    if not files:
        raise DataError(f"{path}: there is no shard of tokens; 'flowmo tokenize DATA --out NAME.shard' makes one")
    return files


def _check_same(
    first_file: Path,
    layout: TokenLayout,
    classes: list[str] | None,
    file: Path,
    other: TokenLayout,
    other_classes: list[str] | None,
) -> None:
    if other.fingerprint != layout.fingerprint:
        raise TokenFileError(
            f"{file} was made by the tokenizer {other.fingerprint}, {first_file} by {layout.fingerprint}: their "
            "integers mean different things; give shards of one"
        )
    if other != layout:
        raise TokenFileError(f"{file}: {_words(other)}, but {first_file}: {_words(layout)}; give shards of one kind")
    if other_classes != classes:
        raise TokenFileError(f"{file} and {first_file} name their classes differently; give shards of one data set")


def _words(layout: TokenLayout) -> str:
    return (
        f"{layout.num_tokens} tokens of {layout.bits_per_token} bits in groups of {layout.bits_per_group}, for images "
        f"of {layout.image_size[0]}x{layout.image_size[1]}"
    )


@dataclass(frozen=True)
class TokenBatch:
    """Tokens of some images, with labels."""

    tokens: Tensor  # int64 B L
    labels: Tensor  # int64 (B,)
    names: list[str]  # of the images
    skipped: tuple[str, ...] = ()  # nothing in a shard is ever broken

    def part(self, k: int, of: int) -> TokenBatch:
        """Return micro-batch ``k`` of ``of``: images k, k + of, ..."""
        return replace(self, tokens=self.tokens[k::of], labels=self.labels[k::of], names=self.names[k::of])

    def to(self, device: torch.device | str) -> TokenBatch:
        return replace(self, tokens=self.tokens.to(device), labels=self.labels.to(device))


@dataclass
class TokenLoader:
    """Batches forever, each epoch a fresh permutation that (seed, epoch) fixes. Position p, counted over all processes,
    fixes the image; rank r of ``world`` takes r, r + world, ... of each batch."""

    data: TokenSet
    batch_size: int  # of this rank
    seed: int
    start: int = 0  # images drawn before, over all ranks
    rank: int = 0
    world: int = 1

    def __iter__(self) -> Iterator[TokenBatch]:
        position, step = self.start, self.batch_size * self.world
        orders: dict[int, np.ndarray] = {}
        while True:
            indices = []
            for p in range(position + self.rank, position + step, self.world):
                epoch, slot = divmod(p, len(self.data))
                if epoch not in orders:
                    orders = {e: o for e, o in orders.items() if e == epoch - 1}
                    seeds = np.random.SeedSequence([self.seed, epoch])
                    orders[epoch] = np.random.Generator(np.random.PCG64(seeds)).permutation(len(self.data))
                indices.append(int(orders[epoch][slot]))
            yield TokenBatch(*self.data.rows(indices), [self.data.names[i] for i in indices])
            position += step

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        return None
