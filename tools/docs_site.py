"""Hooks of mkdocs: README.md is the first page of the site, and links that leave docs/ become plain text there."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[1]
LINK = re.compile(r"(!?)\[([^\]]*)\]\(([^)\s]+)\)")


def on_files(files: Files, config: Any) -> Files:
    """Add README.md as the page index.md."""
    files.append(File.generated(config, "index.md", content=(ROOT / "README.md").read_text(encoding="utf-8")))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Files) -> str:
    """Point links of README.md into the site; keep the text alone of links to files that the site has not."""

    def mended(match: re.Match[str]) -> str:
        mark, text, target = match.groups()
        if re.match(r"[a-z]+:|#", target):
            return match[0]
        path, _, anchor = target.partition("#")
        if page.file.src_uri == "index.md":
            path = path.removeprefix("docs/") if path.startswith("docs/") else f"../{path}"
        if path == "../README.md":
            path = "index.md"
        if path.startswith("../"):
            return text
        return f"{mark}[{text}]({path}{'#' + anchor if anchor else ''})"

    return LINK.sub(mended, markdown)
