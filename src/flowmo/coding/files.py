"""Images become ``.flowmo`` files, one each, and the images of token files and shards are decoded (docs/FORMAT.md)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import torch
from PIL import Image
from torch import Tensor

from ..codec import (
    Entry,
    TokenFile,
    check_decodable,
    coded_images,
    entries_of,
    is_shard,
    read_file,
    read_shard,
    token_batches,
    write_file,
)
from ..data import (
    Fit,
    find_images,
    find_token_files,
    image_batches,
    output_stems,
    relative_names,
    restore_size,
    safe_name,
)
from ..errors import ConfigError, FlowMoError, TokenFileError
from ..files import check_targets, single_image
from ..image_utils import to_pil
from ..image_utils.convert import ORIGINAL
from ..quantize.tokens import Tokens, payload_size
from ..tiles import patch_of
from ..tokenizer import FlowMo
from ..weights.load import PACKAGED, packaged_by_fingerprint


def all_bits(size: tuple[int, int]) -> int | None:
    """Return None: all bits of a token are kept."""
    return None


@dataclass(frozen=True)
class TokenizeJob:
    """Image files, and the token file that each becomes."""

    images: Sequence[Path]  # the images
    targets: Sequence[Path]  # a .flowmo file for each
    size: tuple[int, int] | None  # (height, width) in pixels that they get; None leaves each its own
    fit: Fit = "crop"  # how they get it
    batch_size: int = 16  # images at a time
    bits_per_token: Callable[[tuple[int, int]], int | None] = all_bits  # of (height, width), those kept; None for all


class Written(NamedTuple):
    """A token file that was written."""

    image: Path  # what it codes
    target: Path  # the file
    payload: int  # its bytes without the header


def token_targets(given: Sequence[str], out: Path, force: bool = False) -> tuple[list[Path], list[Path]]:
    """Return the image files that are given by name, folder or pattern, and a ``.flowmo`` file in ``out`` for each.

    Raises ImageError where there are none, ConfigError for targets that exist already, without ``force``.
    """
    paths = find_images(list(given))
    stems = output_stems(relative_names(given, paths), [".flowmo"])
    targets = [out / f"{stem}.flowmo" for stem in stems]
    check_targets(targets, paths, force)
    return paths, targets


def tokenize_images(model: FlowMo, job: TokenizeJob, on_bad: Callable[[Path, FlowMoError], None]) -> Iterator[Written]:
    """Write the token files of a job, in order, and yield each.

    on_bad: called with each image that cannot be coded, and why.
    Raises ConfigError for a rate that a model cannot code at, where all images have one size.
    """
    fingerprint, fit = model.fingerprint(), job.fit if job.size else "whole"
    multiple = patch_of(model.config)
    for batch in image_batches(job.images, job.size, job.fit, job.batch_size, on_bad, multiple=multiple):
        try:
            bits = job.bits_per_token((batch.images.shape[2], batch.images.shape[3]))
        except ConfigError as error:
            if job.size is not None:
                raise
            for index in batch.indices:  # too small for the bytes that were asked for
                on_bad(job.images[index], error)
            continue
        tokens = model.tokenize(batch.images, bits, size=ORIGINAL)
        payload = payload_size(tokens.num_tokens, tokens.bits_per_token)
        for i, index in enumerate(batch.indices):
            try:
                file = TokenFile(tokens[i], fingerprint, fit, batch.original_sizes[i])
            except ConfigError as error:  # larger than the format can say
                on_bad(job.images[index], error)
                continue
            write_file(job.targets[index], file)
            yield Written(job.images[index], job.targets[index], payload)


class OtherTokenizer(Protocol):
    """Another tokenizer than FlowMo, which decodes its own tokens (Table 2)."""

    def fingerprint(self) -> int: ...

    def check_decodable(self, tokens: Tokens) -> None: ...

    def detokenize(self, tokens: Tokens, **sampling: Any) -> Tensor: ...


class CodedFiles(NamedTuple):
    """The images in some token files."""

    entries: list[Entry]  # one an image
    targets: list[Path]  # a PNG file for each
    bad: int  # files that cannot be read


def open_token_files(
    given: Sequence[str], out: Path, on_bad: Callable[[Path, FlowMoError], None], force: bool = False
) -> CodedFiles:
    """Return the images in token files, shards and folders of them, and a PNG file in ``out`` for each.

    Of a single one ``out`` may be that file. on_bad: called with each file that cannot be read, and why. Raises
    TokenFileError where there are none, ConfigError for targets that exist already, without ``force``.
    """
    files, bad = find_token_files(given), 0
    entries: list[Entry] = []
    names: list[Path] = []
    for file, name in zip(files, relative_names(given, files), strict=True):
        try:
            found = entries_of(file)
        except TokenFileError as error:
            on_bad(file, error)
            bad += 1
            continue
        entries += found
        names += [name if entry.row is None else safe_name(entry.name) for entry in found]
    one = single_image(out, len(names)) if names else None
    targets = [one] if one else [out / f"{stem}.png" for stem in output_stems(names, [".png"])]
    check_targets(targets, files, force)
    return CodedFiles(entries, targets, bad)


def decode_entries(
    model: FlowMo | OtherTokenizer,
    entries: Sequence[Entry],
    batch_size: int,
    original_size: bool,
    on_bad: Callable[..., None],
    **sampling: Any,
) -> Iterator[tuple[int, Image.Image]]:
    """Yield the place among the entries, and the image, of each that the model can decode, in order.

    original_size: whether they get the size of the originals; of a cropped one, that of the part that was kept. Those
    that were coded as they are get it always.
    on_bad: called with each file or image that cannot be decoded, why, and the number of images where it is a file.
    sampling: settings of ``FlowMo.detokenize``.
    """
    check = partial(check_decodable, config=model.config) if isinstance(model, FlowMo) else model.check_decodable
    own = model.fingerprint()

    def refused(file: Path, error: FlowMoError, count: int) -> None:
        found = _fingerprint_of(file)
        name = None if found in (own, None) else _packaged(found)
        if name is not None:
            error = TokenFileError(f"{error}; it is that of the packaged {name}: --model {name} decodes it")
        on_bad(file, error, count)

    for batch in token_batches(coded_images(entries, own, check, refused), batch_size):
        first = batch[0].tokens
        tokens = Tokens(torch.cat([item.tokens.indices for item in batch]), first.bits_per_group, first.image_size)
        decoded = to_pil(model.detokenize(tokens, uint8=True, **sampling))
        for item, image in zip(batch, decoded, strict=True):
            entry = entries[item.index]
            try:
                if (original_size or item.fit == "whole") and item.original_size is not None:
                    image = restore_size(image, item.original_size, item.fit)
            except FlowMoError as error:
                on_bad(f"{entry.file}: {entry.name}", error)
                continue
            yield item.index, image


def packaged_tokenizer(entries: Sequence[Entry]) -> str:
    """Return the name of the packaged tokenizer that made the first image, or of the default where none did."""
    found = _fingerprint_of(entries[0].file) if entries else None  # what is wrong is told where the file is decoded
    return PACKAGED if found is None else _packaged(found) or PACKAGED


def _fingerprint_of(file: Path) -> int | None:
    try:
        return (read_shard(file) if is_shard(file) else read_file(file)).fingerprint
    except FlowMoError:
        return None


@cache
def _packaged(fingerprint: int) -> str | None:
    return next(iter(packaged_by_fingerprint([fingerprint])), None)


def shard_image_size(entries: Sequence[Entry]) -> tuple[int, int]:
    """Return the (height, width) of the first shard's images. Raises ConfigError where there is none."""
    for file in dict.fromkeys(entry.file for entry in entries):
        if is_shard(file):
            return read_shard(file).tokens.image_size
    raise ConfigError("--peer decodes shards of another tokenizer, and no file given is a shard; leave it out")
