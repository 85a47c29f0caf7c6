"""The field's words: what the package, the documents and the scripts do not say."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SUFFIXES = (".py", ".md", ".sh", ".js", ".html")
FILES = sorted(
    path
    for folder in ("src", "tests", "docs", "tools", "runs", "examples")
    for path in (ROOT / folder).rglob("*")
    if path.suffix in SUFFIXES and path.is_file() and path != Path(__file__)
)
OURS = re.compile(r"paint|judg|ledger|levers|wishes|make_check|make_sampler_check", re.IGNORECASE)


@pytest.mark.parametrize(
    "path", [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *FILES], ids=lambda path: path.name
)
def test_words_of_our_own_are_not_used(path: Path) -> None:
    """Images are sampled or decoded, models evaluated, settings ablated; results are stored and signals exchanged."""
    lines = path.read_text(encoding="utf-8").splitlines()
    assert [f"{i + 1}: {line}" for i, line in enumerate(lines) if OURS.search(line)] == []


def test_these_words_are_found() -> None:
    assert OURS.search("it paints")
    assert OURS.search("Judge it")
    assert not OURS.search("it decodes")
