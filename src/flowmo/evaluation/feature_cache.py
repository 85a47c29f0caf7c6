"""Features and numbers of images are kept on disk as they are measured (Section 4).

So no network sees an image twice, and a killed evaluation goes on where it was.
"""

from __future__ import annotations

import secrets
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from ..errors import DataError
from ..files import replacing
from ..metrics.networks import Networks
from ..metrics.table import spaces
from ..untrusted import load_arrays

_KEYS = "keys"  # the column of names; any other is the caller's


class FeatureCache:
    """Columns of numbers under text keys, in a folder of chunks that are written whole or not at all and never changed.

    A key says all that its row depends on beside what the folder stands for, so that no row is ever stale. Several
    processes may write; each sees what the others wrote after :meth:`refresh`. A damaged chunk counts as absent.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._where: dict[str, tuple[Path, int]] = {}
        self._read: set[Path] = set()
        self.refresh()

    def refresh(self) -> None:
        """Find the chunks that other processes wrote."""
        for path in sorted(self.folder.glob("*.npz")):
            if path not in self._read:
                self._read.add(path)
                try:
                    keys = _load(path, [_KEYS])[_KEYS]
                except DataError:
                    continue
                self._where.update({str(key): (path, row) for row, key in enumerate(keys)})

    def __contains__(self, key: str) -> bool:
        return key in self._where

    def __len__(self) -> int:
        return len(self._where)

    def add(self, keys: Sequence[str], columns: Mapping[str, np.ndarray]) -> None:
        """Write one row a key; each column is (N, ...) of numbers, and the columns are the same in every call."""
        path = self.folder / f"{secrets.token_hex(8)}.npz"
        with replacing(path) as part, part.open("wb") as file:
            np.savez(file, **{_KEYS: np.array(keys), **columns})  # type: ignore[arg-type]
        self._read.add(path)
        self._where.update({key: (path, row) for row, key in enumerate(keys)})

    def get(self, keys: Sequence[str], columns: Sequence[str] | None = None) -> dict[str, np.ndarray]:
        """Return the rows of the keys, in their order, by column.

        columns: those that are wanted; None for all.
        Raises DataError where a row is missing.
        """
        missing = [key for key in keys if key not in self._where]
        if missing or not keys:
            raise DataError(
                f"{len(missing)} of {len(keys)} rows are not in {self.folder}; with several machines it must be a "
                "folder that all of them see"
            )
        wanted: dict[Path, list[tuple[int, int]]] = {}
        for place, key in enumerate(keys):
            path, row = self._where[key]
            wanted.setdefault(path, []).append((place, row))
        found: dict[str, np.ndarray] = {}
        for path, pairs in wanted.items():
            places, rows = (list(side) for side in zip(*pairs, strict=True))
            for name, values in _load(path, columns).items():
                if name != _KEYS:
                    if name not in found:
                        found[name] = np.empty((len(keys), *values.shape[1:]), values.dtype)
                    found[name][places] = values[rows]
        return found

    def remove(self) -> None:
        """Delete the folder with all rows."""
        shutil.rmtree(self.folder, ignore_errors=True)
        self._where.clear()
        self._read.clear()


def feature_caches(networks: Networks, folder: Path) -> dict[str, FeatureCache]:
    """Return a cache for each "network.space" that the metrics need, in a folder named by network and weights."""
    found = {}
    for needs in spaces(networks.metrics):
        name, space = needs.split(".")
        network = networks.features[name]
        found[needs] = FeatureCache(folder / f"{network.name}-{network.checksum[:8]}-{space}")
    return found


def _load(path: Path, columns: Sequence[str] | None) -> dict[str, np.ndarray]:
    try:
        arrays = load_arrays(path, columns)
        return arrays if columns is None else {name: arrays[name] for name in columns}
    except (OSError, ValueError, KeyError) as error:
        raise DataError(f"{path}: not a whole chunk of an evaluation ({error}); remove it and measure again") from None
