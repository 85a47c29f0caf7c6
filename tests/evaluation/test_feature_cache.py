"""FeatureCache on disk: whole chunks, in any order, of several processes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from flowmo.errors import DataError
from flowmo.evaluation.feature_cache import FeatureCache


def chunk(start: int, stop: int) -> tuple[list[str], dict[str, np.ndarray]]:
    values = np.arange(start, stop, dtype=np.float32)
    return [f"k{i}" for i in range(start, stop)], {"a": values, "b": np.stack([values, -values], 1)}


def test_rows_come_back_in_any_order(tmp_path: Path) -> None:
    FeatureCache(tmp_path / "r").add(*chunk(0, 5))
    FeatureCache(tmp_path / "r").add(*chunk(5, 9))
    rows = FeatureCache(tmp_path / "r")
    assert len(rows) == 9
    assert "k4" in rows
    assert "k9" not in rows
    found = rows.get(["k7", "k0", "k8", "k0"])
    assert found["a"].dtype == np.float32
    assert found["a"].tolist() == [7, 0, 8, 0]
    assert found["b"].tolist() == [[7, -7], [0, 0], [8, -8], [0, 0]]
    assert list(rows.get(["k1"], ["b"])) == ["b"]


def test_others_rows_are_seen_after_a_refresh(tmp_path: Path) -> None:
    ours, theirs = FeatureCache(tmp_path), FeatureCache(tmp_path)
    theirs.add(*chunk(0, 2))
    assert "k0" not in ours
    ours.refresh()
    assert "k0" in ours


def test_missing_rows_are_an_error_and_say_what_to_do(tmp_path: Path) -> None:
    rows = FeatureCache(tmp_path)
    rows.add(*chunk(0, 2))
    with pytest.raises(DataError, match=r"2 of 3 rows are not in .* all of them see"):
        rows.get(["k0", "k2", "k3"])


@pytest.mark.parametrize("damage", [lambda data: data[: len(data) // 2], lambda data: b"", lambda data: b"PK\x03\x04x"])
def test_a_damaged_chunk_counts_as_absent(tmp_path: Path, damage) -> None:
    rows = FeatureCache(tmp_path)
    rows.add(*chunk(0, 2))
    broken = next(tmp_path.glob("*.npz"))
    rows.add(*chunk(2, 4))
    broken.write_bytes(damage(broken.read_bytes()))
    again = FeatureCache(tmp_path)
    assert [key in again for key in ("k0", "k1", "k2", "k3")] == [False, False, True, True]


def test_objects_in_a_chunk_are_never_run(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self):
            return (print, ("run",))

    np.savez(tmp_path / "evil.npz", keys=np.array(["k0"]), a=np.array([Evil()], dtype=object))
    with pytest.raises(DataError, match="whole chunk"):
        FeatureCache(tmp_path).get(["k0"])


def test_remove(tmp_path: Path) -> None:
    rows = FeatureCache(tmp_path / "r")
    rows.add(*chunk(0, 2))
    rows.remove()
    assert not (tmp_path / "r").exists()
    assert len(rows) == 0
