"""Which code made a result: written into every checkpoint and every measured number."""

from __future__ import annotations

import functools
import subprocess
from pathlib import Path
from typing import Any


@functools.cache
def code_version() -> dict[str, Any]:
    """The package's version and, where it runs from a git checkout, the commit and whether files differ from it."""
    from . import __version__

    version: dict[str, Any] = {"flowmo": __version__}
    root = Path(__file__).parents[2]
    if (root / ".git").exists():
        commit = _git(root, "rev-parse", "--short", "HEAD")
        if commit:
            version |= {"commit": commit, "modified": bool(_git(root, "status", "--porcelain", "--", "src"))}
    return version


def _git(root: Path, *arguments: str) -> str:
    try:
        result = subprocess.run(["git", "-C", str(root), *arguments], capture_output=True, text=True, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return result.stdout.strip() if result.returncode == 0 else ""
