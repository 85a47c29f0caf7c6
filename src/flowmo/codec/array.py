"""Tokens of a data set as one NumPy array, for autoregressive trainers of any kind (Section 3.5).

Beside ``tokens.npy`` lie ``tokens.labels.npy``, where there are labels, and ``tokens.json``, which says what the
integers are. ``numpy.load("tokens.npy", mmap_mode="r")`` reads any part of it without the rest.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from ..files import replacing, write_json
from ..quantize.groups import grouping, regroup
from ..quantize.tokens import smallest_unsigned
from .shard import Shard

FORMAT = "flowmo-array-1"
ROWS_AT_ONCE = 4096


def files_beside(target: Path) -> tuple[Path, Path]:
    """Return the paths of the labels and of the facts that belong to the array ``target``."""
    return target.with_suffix(".labels.npy"), target.with_suffix(".json")


def write_array(target: Path, shard: Shard) -> dict[str, Any]:
    """Write the integers of a shard as an array n x length, its labels and its facts, and return the facts.

    A row is one image: token by token, and in a token group by group, each integer below ``vocabulary``.
    Single bits are joined, see ``grouping``. The type is the smallest unsigned one that holds the integers.
    """
    tokens = shard.tokens
    bits, order = grouping(tokens.bits_per_token, tokens.bits_per_group)
    groups = tokens.bits_per_token // bits
    length = tokens.num_tokens * groups
    dtype = smallest_unsigned(bits)
    header = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": (len(tokens), length)}
    with replacing(target) as part, part.open("wb") as file:  # no memory map, which a full disk ends without a word
        np.lib.format.write_array_header_1_0(file, header)
        for first in range(0, len(tokens), ROWS_AT_ONCE):
            rows = tokens.indices[first : first + ROWS_AT_ONCE]
            rows = regroup(rows, tokens.bits_per_group, bits, wanted_order=order)
            file.write(rows.cpu().numpy().astype(dtype).tobytes())
    labels_file, facts_file = files_beside(target)
    labels_file.unlink(missing_ok=True)
    if shard.labels is not None:
        with replacing(labels_file) as part, part.open("wb") as file:
            np.save(file, shard.labels.numpy())
    facts = {
        "format": FORMAT,
        "array": target.name,
        "labels": None if shard.labels is None else labels_file.name,
        "images": len(tokens),
        "length": length,
        "dtype": dtype.name,
        "vocabulary": shard.num_codes or 2**bits,
        "order": "token-major, then group; bit i of an integer has the value 2**i",
        "num_tokens": tokens.num_tokens,
        "groups_per_token": groups,
        "bits_per_group": bits,
        "bit_order": order,
        "bits_per_token": tokens.bits_per_token,
        "image_size": list(tokens.image_size),
        "fit": shard.fit,
        "tokenizer": shard.tokenizer,
        "fingerprint": f"{shard.fingerprint:08x}",
        "classes": shard.classes,
        "names": shard.names,
    }
    write_json(facts_file, facts)
    return facts
