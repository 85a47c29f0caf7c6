"""Tokens on disk: the ``.flowmo`` file of one image, and shards for whole data sets (docs/FORMAT.md)."""

from .array import files_beside, write_array
from .entries import (
    CodedImage,
    Entry,
    check_decodable,
    check_image_size,
    coded_images,
    entries_of,
    is_shard,
    token_batches,
)
from .file import FITS, HEADER_SIZE, TokenFile, decode_file, encode_file, read_file, write_file
from .rates import Rates, bits_per_token_at
from .shard import MappedShard, Shard, map_shard, read_shard, write_shard

__all__ = [
    "FITS",
    "HEADER_SIZE",
    "CodedImage",
    "Entry",
    "MappedShard",
    "Rates",
    "Shard",
    "TokenFile",
    "bits_per_token_at",
    "check_decodable",
    "check_image_size",
    "coded_images",
    "decode_file",
    "encode_file",
    "entries_of",
    "files_beside",
    "is_shard",
    "map_shard",
    "read_file",
    "read_shard",
    "token_batches",
    "write_array",
    "write_file",
    "write_shard",
]
