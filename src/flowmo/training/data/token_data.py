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

from ...codec import is_shard, map_shard
from ...data.sources import Texts
from ...errors import DataError, TokenFileError
from ...files import folder_in_words, user_path
from ...generation import TokenLayout
from ...quantize.groups import check_split, regroup
from ...quantize.tokens import BitOrder


@dataclass(frozen=True)
class TokenSet:
    """The tokens of one tokenizer, with labels.

    They stay in their files, mapped to memory, where the processes of a machine share them.
    """

    shards: Sequence[np.ndarray]  # uint8, uint16 or int32 (n_i, N, G) each
    labels: np.ndarray  # of the smallest unsigned integers, (n,)
    names: Sequence[str]  # of the images
    layout: TokenLayout  # as the shards have them
    bits_per_group: int  # of the integers that rows() gives
    classes: list[str]  # names of the labels, or none
    described: str  # what the data are, in words
    bit_order: BitOrder = "published"  # of the integers that rows() gives

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def num_classes(self) -> int:
        """Return the number of class names, or the largest label and one where there are none."""
        return len(self.classes) or int(self.labels.max()) + 1

    def describe(self) -> str:
        """Return what the data are, in words."""
        return self.described

    def rows(self, indices: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Return tokens int64 B L, in integers of ``bits_per_group`` bits, and labels int64 (B,)."""
        places = np.asarray(indices, dtype=np.int64)
        ends = np.cumsum([len(shard) for shard in self.shards])
        found = np.empty((len(places), *self.shards[0].shape[1:]), dtype=np.int64)
        which = np.searchsorted(ends, places, side="right")
        for k in np.unique(which):
            shard, here = self.shards[k], which == k
            found[here] = shard[places[here] - (ends[k] - len(shard))]
        own, wanted = self.layout.bits_per_group, self.bits_per_group
        tokens = regroup(torch.from_numpy(found), own, wanted, wanted_order=self.bit_order).flatten(1)
        return tokens, torch.from_numpy(self.labels[places].astype(np.int64))


def read_token_set(
    path: str | Path,
    bits_per_group: int | None = None,
    class_names: Sequence[str] | None = None,
    bit_order: BitOrder = "published",
) -> TokenSet:
    """Return the shards that ``path`` names, mapped and checked: a file, a folder of them, or a pattern.

    bits_per_group, bit_order: of the sequences; by default as many bits as the integers of the shards have.
    class_names: instead of those in the shards.
    Raises DataError, naming the file, for shards without labels or of several tokenizers, and for labels that do not
    fit the names; TokenFileError for a damaged one; ConfigError where a token cannot be cut into such groups.
    """
    files = shard_files(path)
    parts: list[np.ndarray] = []
    labels: list[np.ndarray] = []
    names: list[Sequence[str]] = []
    first: tuple[TokenLayout, list[str] | None] | None = None
    for file in files:
        shard = map_shard(file)
        tokens = shard.about.tokens
        layout = TokenLayout(
            f"{shard.about.fingerprint:08x}",
            tokens.num_tokens,
            tokens.bits_per_token,
            tokens.bits_per_group,
            tokens.image_size,
            shard.about.tokenizer,
            shard.about.num_codes,
        )
        if first is None:
            first = layout, shard.about.classes
        _check_same(files[0], *first, file, layout, shard.about.classes)
        if shard.labels is None:
            raise DataError(
                f"{file}: has no labels, which a generator is trained with; write them by 'flowmo tokenize --labels'"
            )
        parts.append(shard.integers)
        labels.append(shard.labels)
        names.append(_compact(shard.names))
    assert first is not None
    layout, classes = first
    bits = bits_per_group or layout.bits_per_group
    check_split(layout.bits_per_token, bits)
    found = np.concatenate(labels)
    if not len(found):
        raise DataError(f"{path}: the shards hold no images")
    if found.min() < 0:
        raise DataError(f"{path}: labels are counted from 0, got {found.min()}")
    if class_names is not None and found.max() >= len(class_names):
        raise DataError(f"{len(class_names)} names of classes do not fit labels up to {found.max()}, counted from 0")
    return TokenSet(
        parts,
        found.astype(np.min_scalar_type(found.max())),
        names[0] if len(names) == 1 else _compact([name for part in names for name in part]),
        layout,
        bits,
        list(class_names if class_names is not None else classes or []),
        f"{len(found):,} images of {len(np.unique(found))} classes in "
        + (files[0].name if len(files) == 1 else f"{len(files)} shards")
        + f" of {folder_in_words(files[0].parent)}",
        bit_order,
    )


def _compact(names: list[str]) -> Sequence[str]:
    """Return names in one piece of memory, or as they are where one is no text that a file's name could be."""
    try:
        return Texts(names)
    except UnicodeEncodeError:
        return names


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
            f"{file} was made by the tokenizer {other.title}, {first_file} by {layout.title}: their "
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
    """Batches forever, each epoch a fresh permutation that (seed, epoch) fixes.

    Position p, counted over all processes, fixes the image. Rank r of ``world`` takes r, r + world, ... of each batch.
    """

    data: TokenSet  # what the batches are drawn from
    batch_size: int  # of this rank
    seed: int  # of the permutations
    start: int = 0  # images drawn before, over all ranks
    rank: int = 0  # of this process
    world: int = 1  # how many processes there are

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
