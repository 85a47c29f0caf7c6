"""Shards: the tokens of many images in one safetensors file, with names and optional labels (docs/FORMAT.md)."""

from __future__ import annotations

import contextlib
import json
import os
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from ..errors import ConfigError, DataError, TokenFileError
from ..files import replacing, save_tensors
from ..labels import checked_labels
from ..quantize.tokens import INTEGERS, Tokens
from .file import check_fingerprint, check_origin, check_plain

FORMAT = "flowmo-tokens-1"
SETTINGS = ("bits_per_group", "bits_per_token", "crc32", "fingerprint", "fit", "image_size", "names")
OPTIONAL = ("classes", "tokenizer", "num_codes")
COLUMNS = {"tokens": None, "labels": torch.int64, "original_sizes": torch.int32}  # tokens: token_dtype()
ROWS_AT_ONCE = 256  # whose checks take a few MB
"""Images of a mapped shard that are checked at a time."""
MAX_NAMES_SIZE = 90_000_000  # safetensors refuses to read a header of more than 100 MB


@dataclass(frozen=True, eq=False)
class Shard:
    """The tokens of n images and where they come from.

    Raises ConfigError where the fields do not fit together.
    """

    tokens: Tokens  # of n images
    names: list[str]  # one an image
    labels: Tensor | None  # int64 (n,), or None
    fingerprint: int  # as in :class:`~flowmo.codec.file.TokenFile`
    fit: str  # as in :class:`~flowmo.codec.file.TokenFile`
    original_sizes: Tensor | None  # int32 (n, 2), height and width in pixels before the fit, or None
    classes: list[str] | None = None  # the names of the labels, from 0 on, or None
    tokenizer: str | None = None  # the name of another tokenizer that made them, such as open-magvit2; None for FlowMo
    num_codes: int | None = None  # integers that it knows, from 0 on, where they are fewer than the bits allow

    def __post_init__(self) -> None:
        check_origin(self.fingerprint, self.fit)
        if isinstance(self.names, str) or not all(isinstance(name, str) for name in self.names):
            raise ConfigError("names must be a list with one text an image")
        object.__setattr__(self, "names", list(self.names))
        n = len(self.tokens)
        if len(self.names) != n:
            raise ConfigError(f"{n} images, but {len(self.names)} names; give one an image")
        for name, shape in (("labels", (n,)), ("original_sizes", (n, 2))):
            column = getattr(self, name)
            if column is None:
                continue
            if not isinstance(column, Tensor) or column.dtype not in INTEGERS or column.shape != shape:
                raise ConfigError(f"{name} must be a tensor of integers of the shape {shape}")
            if name == "labels":
                _check_labels(column)
            column = column.to(torch.int64)
            if name == "original_sizes" and ((column < 1) | (column >= 2**31)).any():
                raise ConfigError("original_sizes are heights and widths in pixels, each at least 1")
            object.__setattr__(self, name, column.to(COLUMNS[name]))
        if self.classes is not None:
            check_classes(self.classes, self.labels)
        check_codes(self.tokens, self.num_codes)


def check_codes(tokens: Tokens, num_codes: int | None) -> None:
    """Raise ConfigError for tokens that are none of so many codes."""
    if num_codes is None:
        return
    if tokens.num_groups != 1 or not 0 < num_codes < 2**tokens.bits_per_group:
        raise ConfigError(
            f"num_codes is for tokens of one integer, fewer than its bits allow; got {num_codes} for {tokens!r}"
        )
    if tokens.indices.numel() and int(tokens.indices.max()) >= num_codes:
        raise ConfigError(f"a token is {int(tokens.indices.max())}, but there are {num_codes} codes, from 0 on")


def check_classes(classes: list[str], labels: Tensor | None) -> None:
    """Raise ConfigError unless there are labels (n,) and each of them has a name."""
    if not isinstance(classes, list) or not all(isinstance(name, str) for name in classes):
        raise ConfigError("classes must be a list with one text a class")
    if labels is None:
        raise ConfigError("there are names of classes, but the images have no labels")
    if len(labels) and not 0 <= int(labels.min()) <= int(labels.max()) < len(classes):
        raise ConfigError(
            f"labels from {int(labels.min())} to {int(labels.max())} do not fit {len(classes)} names of classes: names "
            "are counted from 0, one a class"
        )


def _check_labels(labels: Tensor) -> None:
    """Raise ConfigError unless each is a class: a shard has a label for every image, or none."""
    try:
        checked = checked_labels(labels.cpu().numpy(), "labels")
    except DataError as error:
        raise ConfigError(str(error)) from None
    if (checked < 0).any():
        raise ConfigError("labels are counted from 0, got -1; leave images without a class out")


def token_dtype(bits_per_group: int) -> torch.dtype:
    """Return the smallest of uint8, uint16 and int32 that holds integers of so many bits."""
    return torch.uint8 if bits_per_group <= 8 else torch.uint16 if bits_per_group <= 16 else torch.int32


def write_shard(path: str | os.PathLike[str], shard: Shard) -> None:
    """Write a shard, all of it or nothing, and make its folder.

    Raises TokenFileError where that fails, ConfigError where the names are too many for one file.
    """
    tokens = shard.tokens
    columns = {"tokens": tokens.indices.to(token_dtype(tokens.bits_per_group))}
    if shard.labels is not None:
        columns["labels"] = shard.labels
    if shard.original_sizes is not None:
        columns["original_sizes"] = shard.original_sizes
    columns = {name: column.cpu().contiguous() for name, column in columns.items()}
    settings = {
        "format": FORMAT,
        "bits_per_group": str(tokens.bits_per_group),
        "bits_per_token": str(tokens.bits_per_token),
        "image_size": json.dumps(tokens.image_size),
        "fingerprint": f"{shard.fingerprint:08x}",
        "fit": shard.fit,
        "names": json.dumps(shard.names),
    }
    if shard.classes is not None:
        settings["classes"] = json.dumps(shard.classes)
    if shard.tokenizer is not None:
        settings["tokenizer"] = shard.tokenizer
    if shard.num_codes is not None:
        settings["num_codes"] = str(shard.num_codes)
    if len(settings["names"]) > MAX_NAMES_SIZE:
        raise ConfigError(f"the names of {len(shard.names)} images are too long for one shard; write several")
    settings["crc32"] = _checksum(settings, columns)
    try:
        with replacing(Path(path)) as part:
            save_tensors(columns, part, settings)
    except (OSError, ValueError, SafetensorError) as error:
        raise TokenFileError(f"cannot write {os.fspath(path)!r}: {error}") from None


def read_shard(path: str | os.PathLike[str], fingerprint: int | None = None) -> Shard:
    """Read a shard into memory and return it.

    fingerprint: of the model that shall decode the tokens; None does not compare.
    Raises TokenFileError for a file that cannot be read, is not a whole shard, or is of another encoder.
    """
    with _told(path):
        settings, columns = _columns(path)
        # cloned, so that nothing points into the file once it is closed
        columns = {name: column.clone() for name, column in columns.items()}
        return _shard(settings, columns, *_checked(settings, columns, fingerprint))


@dataclass(frozen=True, eq=False)
class MappedShard:
    """A shard whose tokens stay in its file until they are asked for.

    What is asked for comes into memory once for all processes of a machine.
    The file may be replaced meanwhile, but not be written into.
    """

    integers: np.ndarray  # uint8, uint16 or int32 (n, N, G), not writable
    labels: np.ndarray | None  # int64 (n,), not writable
    names: list[str]  # one an image
    about: Shard  # a shard of the last images; all but its columns and names holds for every image


def map_shard(path: str | os.PathLike[str]) -> MappedShard:
    """Return a shard with its tokens left in the file, each checked as :func:`read_shard` does. Raises as that does."""
    with _told(path):
        settings, columns = _columns(path)
        names, classes, found = _checked(settings, columns, None)
        count = len(columns["tokens"])
        for first in range(0, max(count, 1), ROWS_AT_ONCE):
            rows = slice(first, first + ROWS_AT_ONCE if first + ROWS_AT_ONCE < count else None)
            part = {name: column[rows] for name, column in columns.items()}
            about = _shard(settings, part, names[rows], classes, found)
    arrays = {name: column.numpy() for name, column in columns.items()}
    for array in arrays.values():
        array.flags.writeable = False
    return MappedShard(arrays["tokens"], arrays.get("labels"), names, about)


@contextlib.contextmanager
def _told(path: str | os.PathLike[str]) -> Iterator[None]:
    """Raise TokenFileError, naming the file, for whatever goes wrong inside."""
    try:
        yield
    except (TokenFileError, ConfigError) as error:
        raise TokenFileError(f"{os.fspath(path)}: {error}") from None
    except (OSError, SafetensorError, ValueError, TypeError, OverflowError, RecursionError) as error:
        raise TokenFileError(f"cannot read {os.fspath(path)!r} as a token shard: {error}") from None


def _columns(path: str | os.PathLike[str]) -> tuple[dict[str, str], dict[str, Tensor]]:
    """Return the settings of a shard, and its columns as views into the file."""
    check_plain(path)
    with open(path, "rb"):  # of a file that may not be read, safetensors says that it is not there
        pass
    with safe_open(os.fspath(path), framework="pt") as stream:
        settings = stream.metadata() or {}
        if settings.get("format") != FORMAT:
            raise TokenFileError(f'not a token shard of the format "{FORMAT}"')
        present = set(stream.keys())
        return settings, {name: stream.get_tensor(name) for name in COLUMNS if name in present}


def _checked(
    settings: dict[str, str], columns: dict[str, Tensor], fingerprint: int | None
) -> tuple[list[str], list[str] | None, int]:
    """Return names, names of classes and fingerprint of a shard that is whole. Raises TokenFileError for any other."""
    missing = [name for name in SETTINGS if name not in settings] + ["tokens"] * ("tokens" not in columns)
    if missing:
        raise TokenFileError(f"damaged: {', '.join(missing)} missing")
    bits = int(settings["bits_per_group"])
    for name, column in columns.items():
        if column.dtype != (COLUMNS[name] or token_dtype(bits)):
            raise TokenFileError(f"damaged: {name} are stored as {column.dtype}")
    if settings["crc32"] != _checksum(settings, columns):
        raise TokenFileError("damaged: the checksum does not match; copy the file again from its source")
    names = json.loads(settings["names"])
    if not isinstance(names, list):
        raise TokenFileError("damaged: the names are not a list")
    found = int(settings["fingerprint"], 16)
    check_fingerprint(found, fingerprint, settings.get("tokenizer"))
    return names, json.loads(settings["classes"]) if "classes" in settings else None, found


def _shard(
    settings: dict[str, str], columns: dict[str, Tensor], names: list[str], classes: list[str] | None, fingerprint: int
) -> Shard:
    tokens = Tokens(columns["tokens"], int(settings["bits_per_group"]), json.loads(settings["image_size"]))
    if settings["bits_per_token"] != str(tokens.bits_per_token):
        raise TokenFileError(f"damaged: bits_per_token {settings['bits_per_token']}, found {tokens.bits_per_token}")
    sizes = columns.get("original_sizes")
    codes = int(settings["num_codes"]) if "num_codes" in settings else None
    of = settings.get("tokenizer")
    return Shard(tokens, names, columns.get("labels"), fingerprint, settings["fit"], sizes, classes, of, codes)


def _checksum(settings: dict[str, str], columns: dict[str, Tensor]) -> str:
    """Return the CRC32 in hex over the known settings, in order, then the columns' bytes in the order of COLUMNS."""
    known = [name for name in ("format", *SETTINGS, *OPTIONAL) if name in settings and name != "crc32"]
    crc = zlib.crc32("\n".join(settings[name] for name in known).encode())
    for name in COLUMNS:
        if name in columns and columns[name].numel():
            crc = zlib.crc32(columns[name].contiguous().numpy().data, crc)
    return f"{crc:08x}"
