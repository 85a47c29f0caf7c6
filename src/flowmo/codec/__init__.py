"""Tokens on disk: the ``.flowmo`` file of one image, and shards for whole data sets (docs/FORMAT.md)."""

from .file import FITS, HEADER_SIZE, TokenFile, decode_file, encode_file, read_file, write_file
from .shard import Shard, read_shard, write_shard

__all__ = [
    "FITS",
    "HEADER_SIZE",
    "Shard",
    "TokenFile",
    "decode_file",
    "encode_file",
    "read_file",
    "read_shard",
    "write_file",
    "write_shard",
]
