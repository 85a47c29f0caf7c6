"""The packaged sample pictures: square, small, and each with its rights written down."""

from __future__ import annotations

from flowmo import samples
from flowmo.data import open_image


def test_samples() -> None:
    paths = samples.paths()
    assert len(paths) == 8
    assert {open_image(p).original_size for p in paths} == {(256, 256)}
    assert sum(p.stat().st_size for p in paths) < 400_000
    rights = (paths[0].parent / "SOURCES.md").read_text()
    for path in paths:
        (row,) = [line for line in rights.splitlines() if line.startswith(f"| `{path.name}`")]
        assert "CC0" in row or "public domain" in row
