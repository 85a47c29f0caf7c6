"""The ``.flowmo`` file: one image as a 24-byte header and its packed tokens (docs/FORMAT.md)."""

from __future__ import annotations

import os
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import ConfigError, TokenFileError
from ..files import replacing
from ..image_utils.regular import check_regular
from ..quantize.tokens import Tokens, check_size, payload_size

MAGIC = b"FMO"
VERSION, WIDE = 1, 2  # the second has a wider number of tokens, for images of more than MAX_NARROW
FITS = ("crop", "pad", "stretch", "whole")  # their place in this tuple is their number in the header
FIELDS = {VERSION: struct.Struct("<3sBIHHHHHBB"), WIDE: struct.Struct("<3sBIHHHHIBB")}
CHECKSUM = struct.Struct("<I")
HEADER_SIZE = FIELDS[VERSION].size + CHECKSUM.size
MAX_SIDE = MAX_NARROW = 2**16 - 1
MAX_TOKENS = 2**20
MAX_BITS_PER_TOKEN = 2**8 - 1
MAX_FILE_SIZE = HEADER_SIZE + payload_size(MAX_TOKENS, MAX_BITS_PER_TOKEN)


@dataclass(frozen=True)
class TokenFile:
    """The content of a ``.flowmo`` file.

    Raises ConfigError for values that the format cannot hold.
    """

    tokens: Tokens  # of exactly one image
    fingerprint: int  # of the encoder and quantizer that made them, an unsigned 32-bit number
    fit: str  # how the picture was brought to ``tokens.image_size``: one of ``FITS``
    original_size: tuple[int, int]  # the picture's (height, width) before that, in pixels

    def __post_init__(self) -> None:
        check_origin(self.fingerprint, self.fit)
        object.__setattr__(self, "original_size", check_size(self.original_size, "original_size"))
        if len(self.tokens) != 1:
            raise ConfigError(
                f"a .flowmo file holds one image, got {len(self.tokens)}; write a shard, or one file each"
            )
        limits = (
            ("num_tokens", self.tokens.num_tokens, MAX_TOKENS),
            ("bits_per_token", self.tokens.bits_per_token, MAX_BITS_PER_TOKEN),
            ("a side of the image", max(self.tokens.image_size), MAX_SIDE),
            ("a side of the original image", max(self.original_size), MAX_SIDE),
        )
        for name, value, limit in limits:
            if value > limit:
                raise ConfigError(f"{name} is {value}, but a .flowmo file holds at most {limit}")


def encode_file(file: TokenFile) -> bytes:
    """Return the bytes of a ``.flowmo`` file: the header and the payload (256 tokens of 18 bits: 24 + 576).

    The header has ``HEADER_SIZE`` bytes, or two more for more than ``MAX_NARROW`` tokens.
    """
    tokens = file.tokens
    version = VERSION if tokens.num_tokens <= MAX_NARROW else WIDE
    fields = FIELDS[version].pack(
        MAGIC,
        version | FITS.index(file.fit) << 4,
        file.fingerprint,
        *tokens.image_size,
        *file.original_size,
        tokens.num_tokens,
        tokens.bits_per_token,
        tokens.bits_per_group,
    )
    payload = tokens.to_bytes()[0]
    return fields + CHECKSUM.pack(_checksum(fields, payload)) + payload


def decode_file(data: bytes, fingerprint: int | None = None) -> TokenFile:
    """Return the content of the bytes of a ``.flowmo`` file, the inverse of :func:`encode_file`.

    fingerprint: of the model that shall decode the tokens; None does not compare.
    Raises TokenFileError, and nothing else, for bytes that are not exactly such a file or are of another encoder.
    """
    if data[: len(MAGIC)] != MAGIC:
        raise TokenFileError('not a .flowmo file: it does not begin with "FMO"')
    if len(data) < HEADER_SIZE:
        raise TokenFileError(f"truncated: {len(data)} bytes, where the header alone takes {HEADER_SIZE}")
    version, fit = data[len(MAGIC)] & 15, data[len(MAGIC)] >> 4
    if version not in FIELDS:
        raise TokenFileError(
            f"format version {version}, but this program reads versions {VERSION} and {WIDE}; "
            "install a newer flowmo, or the file is damaged"
        )
    layout = FIELDS[version]
    header_size = layout.size + CHECKSUM.size
    if len(data) < header_size:
        raise TokenFileError(f"truncated: {len(data)} bytes, where the header alone takes {header_size}")
    fields, payload = data[: layout.size], data[header_size:]
    _, _, found, height, width, *original, num_tokens, token_bits, group_bits = layout.unpack(fields)
    expected = payload_size(num_tokens, token_bits)
    if len(payload) != expected:
        problem = "truncated" if len(payload) < expected else "too long"
        raise TokenFileError(
            f"{problem} or damaged: {len(payload)} bytes follow the header, which announces {expected} "
            f"({num_tokens} tokens of {token_bits} bits)"
        )
    if num_tokens > MAX_TOKENS:  # before they are unpacked
        raise TokenFileError(f"damaged: num_tokens is {num_tokens}, but a .flowmo file holds at most {MAX_TOKENS}")
    if _checksum(fields, payload) != CHECKSUM.unpack_from(data, layout.size)[0]:
        raise TokenFileError("damaged: the checksum does not match; copy the file again from its source")
    if fit >= len(FITS):
        raise TokenFileError(f"damaged: fit {fit} is none of 0 to {len(FITS) - 1}")
    check_fingerprint(found, fingerprint)
    try:
        tokens = Tokens.from_bytes([bytes(payload)], num_tokens, token_bits, group_bits, (height, width))
        return TokenFile(tokens, found, FITS[fit], (original[0], original[1]))
    except ConfigError as error:
        raise TokenFileError(f"damaged: {error}") from None


def write_file(path: str | os.PathLike[str], file: TokenFile) -> None:
    """Write a ``.flowmo`` file, all of it or nothing, and make its folder. Raises TokenFileError."""
    write_atomically(path, encode_file(file))


def read_file(path: str | os.PathLike[str], fingerprint: int | None = None) -> TokenFile:
    """Read a ``.flowmo`` file and return its content, as :func:`decode_file` does.

    Raises TokenFileError with the file's name, also where it cannot be opened.
    """
    try:
        check_plain(path)
        with open(path, "rb") as stream:
            data = stream.read(MAX_FILE_SIZE + 1)  # more than that is wrong anyway, and may be gigabytes
        return decode_file(data, fingerprint)
    except TokenFileError as error:
        raise TokenFileError(f"{os.fspath(path)}: {error}") from None
    except (OSError, ValueError) as error:
        raise TokenFileError(f"cannot read {os.fspath(path)!r}: {error}") from None


def check_plain(path: str | os.PathLike[str]) -> None:
    """Raise OSError, saying what is there, unless it is a file that ends: no pipe, folder, or link to nothing."""
    check_regular(path)
    if os.path.isdir(path):
        os.scandir(path).close()  # says why a folder cannot be searched, where it is that
        raise OSError("it is a folder")


def check_origin(fingerprint: Any, fit: Any) -> None:
    """Raise ConfigError unless fingerprint is an unsigned 32-bit number and fit a known one."""
    if not isinstance(fingerprint, int) or isinstance(fingerprint, bool) or not 0 <= fingerprint < 2**32:
        raise ConfigError(f"fingerprint must be a whole number from 0 to 2**32 - 1, got {fingerprint!r}")
    if fit not in FITS:
        raise ConfigError(f"fit must be one of {', '.join(FITS)}; got {fit!r}")


def check_fingerprint(found: int, expected: int | None, tokenizer: str | None = None) -> None:
    """Raise TokenFileError where ``expected`` is given and differs from the fingerprint ``found``.

    tokenizer: the name of another tokenizer than FlowMo, whose tokens they are.
    """
    if expected is None or found == expected:
        return
    if tokenizer is not None:
        raise TokenFileError(
            f"made by another tokenizer, {tokenizer}: the tokens carry the checksum {found:08x} of its weights and "
            f"image size, the loaded tokenizer has {expected:08x}; decode them by --peer {tokenizer}=WEIGHTS with the "
            "weights that made them"
        )
    raise TokenFileError(
        f"made by another encoder: the tokens carry the fingerprint {found:08x}, the loaded model has "
        f"{expected:08x}; load the model that made them, or tokenize the original picture again with this one"
    )


def write_atomically(path: str | os.PathLike[str], data: bytes) -> None:
    """Write all of a file or nothing, and make its folder. Raises TokenFileError."""
    try:
        with replacing(Path(path)) as part:
            part.write_bytes(data)
    except (OSError, ValueError) as error:
        raise TokenFileError(f"cannot write {os.fspath(path)!r}: {error}") from None


def _checksum(fields: bytes, payload: bytes) -> int:
    return zlib.crc32(payload, zlib.crc32(fields))
