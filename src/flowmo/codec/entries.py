"""Images of ``.flowmo`` files and shards alike, one after another, for a decoder that takes them in batches."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

from safetensors import SafetensorError, safe_open

from ..config import FlowMoConfig
from ..errors import FlowMoError, ImageError, TokenFileError
from ..quantize.tokens import Tokens
from ..tiles import patch_of
from .file import MAGIC, check_plain, read_file
from .shard import FORMAT, Shard, read_shard

SHARD_SUFFIXES = (".shard", ".safetensors")
MAX_CODED_PIXELS = 2**22
"""Attention over a larger image would need hours or more memory than there is; a header can claim 4 gigapixels."""


@dataclass(frozen=True)
class Entry:
    """One coded image is named here by its file and its row in it."""

    file: Path  # the shard or ``.flowmo`` file that holds it
    row: int | None  # its place in a shard, None in a ``.flowmo`` file
    name: str  # its name in the shard, or that of the ``.flowmo`` file


@dataclass(frozen=True)
class CodedImage:
    """One coded image has its tokens and what its file says of it."""

    index: int  # its place among the entries that were asked for, from 0
    tokens: Tokens  # of this one image
    fit: str  # how the image was brought to the size of its tokens, see ``TokenFile``
    original_size: tuple[int, int] | None  # (height, width) in pixels before ``fit``, None where a shard has none


def is_shard(path: Path) -> bool:
    """Return whether the file is a shard of tokens, damaged or not, by its header alone."""
    if not os.path.isfile(path):  # False too where it may not be looked at
        return False
    try:
        with safe_open(path, framework="pt") as stream:
            return (stream.metadata() or {}).get("format") == FORMAT
    except (OSError, SafetensorError):
        return False


def is_token_file(path: Path) -> bool:
    """Return whether the file begins as a ``.flowmo`` file does."""
    try:
        check_plain(path)
        with path.open("rb") as file:
            return file.read(len(MAGIC)) == MAGIC
    except OSError:
        return False


def entries_of(path: Path) -> list[Entry]:
    """Return an entry for each image in a file, in order.

    A ``.flowmo`` file is one image and is not opened yet. Raises TokenFileError for a damaged shard.
    """
    if is_shard(path) or (path.suffix.lower() in SHARD_SUFFIXES and not is_token_file(path)):
        return [Entry(path, row, name) for row, name in enumerate(read_shard(path).names)]
    return [Entry(path, None, path.name)]


def coded_images(
    entries: Sequence[Entry],
    fingerprint: int,
    check: Callable[[Tokens], None],
    on_bad: Callable[[Path, FlowMoError, int], None],
) -> Iterator[CodedImage]:
    """Yield the images of ``entries`` that the tokenizer of that fingerprint can decode, in order.

    check: called with the tokens of a file's first image, raises an error for those that it cannot decode.
    on_bad: called with each file that it cannot decode, the error and the number of the file's images.
    One shard at a time is in memory.
    """
    for file, group in groupby(enumerate(entries), key=lambda pair: pair[1].file):
        members = list(group)
        try:
            images = _read(file, members, fingerprint)
            # one size and one kind of tokens a file, so that the first image speaks for all
            check(images[0].tokens)
        except FlowMoError as error:
            on_bad(file, error, len(members))
        else:
            yield from images


def check_image_size(size: tuple[int, int], config: FlowMoConfig) -> None:
    """Raise ImageError unless (height, width) is whole patches of the model and at most ``MAX_CODED_PIXELS``."""
    patch = patch_of(config)
    if size[0] % patch or size[1] % patch or min(size) < patch:
        raise ImageError(f"{size[0]}x{size[1]} pixels: this model needs height and width that are multiples of {patch}")
    if config.transform is None and size[0] * size[1] > MAX_CODED_PIXELS:  # else it is decoded in tiles
        raise ImageError(f"{size[0]}x{size[1]} pixels are too many for the model: at most {MAX_CODED_PIXELS:,}")


def token_batches(images: Iterator[CodedImage], batch_size: int) -> Iterator[list[CodedImage]]:
    """Yield lists of at most ``batch_size`` images of one size, in order."""
    batch: list[CodedImage] = []
    for image in images:
        if batch and (len(batch) == batch_size or image.tokens.image_size != batch[0].tokens.image_size):
            yield batch
            batch = []
        batch.append(image)
    if batch:
        yield batch


def _read(file: Path, members: list[tuple[int, Entry]], fingerprint: int) -> Sequence[CodedImage]:
    if members[0][1].row is None:
        one = read_file(file, fingerprint)
        return [CodedImage(members[0][0], one.tokens, one.fit, one.original_size)]
    return _ShardImages(read_shard(file, fingerprint), members)


class _ShardImages(Sequence[CodedImage]):
    """The images of a shard as a sequence, each cut out when it is asked for."""

    def __init__(self, shard: Shard, members: list[tuple[int, Entry]]) -> None:
        self.shard, self.members = shard, members
        if len(shard.names) != len(members):
            raise TokenFileError(f"{members[0][1].file}: changed while it was read; try again")

    def __len__(self) -> int:
        return len(self.members)

    def __getitem__(self, place: int) -> CodedImage:  # type: ignore[override]
        index, entry = self.members[place]
        sizes, row = self.shard.original_sizes, entry.row or 0
        size = None if sizes is None else (int(sizes[row, 0]), int(sizes[row, 1]))
        return CodedImage(index, self.shard.tokens[row], self.shard.fit, size)


def check_decodable(tokens: Tokens, config: FlowMoConfig) -> None:
    """Raise ImageError or TokenFileError for tokens that a FlowMo of this configuration cannot decode."""
    check_image_size(tokens.image_size, config)
    found = (tokens.num_tokens, tokens.bits_per_token, tokens.bits_per_group)
    wanted = (config.tokens_of(tokens.image_size), config.bits_per_token, config.bits_per_group)
    if config.transform is not None:
        wanted = (wanted[0], min(found[1], wanted[1]), wanted[2])
    if found != wanted:
        raise TokenFileError(
            f"damaged: {found[0]} tokens of {found[1]} bits in groups of {found[2]}, but the model that the "
            f"fingerprint names has {wanted[0]} of {config.bits_per_token} in groups of {config.bits_per_group}"
        )
