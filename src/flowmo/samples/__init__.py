"""Eight sample pictures, 256x256, free of rights (SOURCES.md): what the demo and the tests reconstruct."""

from __future__ import annotations

from pathlib import Path


def paths() -> list[Path]:
    """Return the files of the sample pictures, in sorted order."""
    return sorted(Path(__file__).parent.glob("*.jpg"))
