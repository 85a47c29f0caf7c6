"""One self-contained HTML file shows originals and reconstructions, as Figures 4 and 10 do, but with all the pixels.

Everything is in the file, style, program and pictures. A policy in its head forbids the browser to fetch anything, so
it works the same from a disk, a mail or a server. Names come from untrusted files, so they reach the page as JSON data
and are only ever set as text.
"""

from __future__ import annotations

import base64
import hashlib
import html
import io
import json
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib import resources
from pathlib import Path
from typing import Literal

from PIL import Image

from ...errors import ConfigError
from ...files import replacing

Kind = Literal["original", "model", "codec", "thumbnail"]
SCRIPTS = ("view.js", "divider.js", "tables.js", "page.js")


@dataclass(frozen=True)
class Pane:
    """What all pictures have one of, such as the original or a method."""

    name: str  # its title
    kind: Kind  # what it shows
    about: str = ""  # a sentence on it


@dataclass(frozen=True)
class Cell:
    """One picture in one pane; a number is None where there is no such thing."""

    data: bytes  # of :func:`lossless`
    bytes: int | None = None  # what it costs without headers
    file_bytes: int | None = None  # what it costs with headers
    psnr: float | None = None  # dB, higher is closer
    lpips: float | None = None  # lower is closer
    about: str = ""  # how it was made


@dataclass(frozen=True)
class GalleryRow:
    """One picture in all panes."""

    name: str  # its title
    cells: Sequence[Cell | None]  # one a pane, the original first; None as when a codec cannot make a file so small


def lossless(image: Image.Image) -> bytes:
    """Return a WebP of an RGB picture that decodes to the very same pixels, so that what is shown was measured."""
    buffer = io.BytesIO()
    image.convert("RGB").save(buffer, "WEBP", lossless=True, exact=True, quality=60, method=4)
    return buffer.getvalue()


def write_gallery(
    path: Path,
    panes: Sequence[Pane],
    images: Sequence[GalleryRow],
    size: tuple[int, int],
    title: str,
    notes: Sequence[str] = (),
) -> int:
    """Write the page, all of it or nothing, and return its size in bytes.

    size: (height, width) in pixels, of all pictures.
    notes: sentences for the page's end.
    Raises ConfigError for panes or pictures that do not fit together, and OSError where the file cannot be written.
    """
    _check(panes, images)
    style, script = _template("page.css"), "\n".join(map(_template, SCRIPTS))
    data = {
        "size": {"height": size[0], "width": size[1]},
        "panes": [asdict(pane) for pane in panes],
        "pictures": [{"name": p.name, "cells": [_numbers(cell) for cell in p.cells]} for p in images],
    }
    values = {
        "title": html.escape(title),
        "policy": f"default-src 'none'; img-src data:; style-src {_hash(style)}; script-src {_hash(script)}",
        "style": style,
        "script": script,
        "notes": "".join(f"<p>{html.escape(note)}</p>" for note in notes),
        "data": _json(data),
    }
    with replacing(path) as part:
        with part.open("w", encoding="utf-8", newline="\n") as file:
            for i, text in enumerate(re.split(r"\{\{(\w+)\}\}", _template("page.html"))):
                if i % 2 == 0:
                    file.write(text)
                elif text == "pictures":
                    file.writelines(map(_row_html, images))
                else:
                    file.write(values[text])
        return part.stat().st_size


def _row_html(image: GalleryRow) -> str:
    """Return the pictures of one row, which the page decodes when they are looked at."""
    encoded = [None if cell is None else base64.b64encode(cell.data).decode() for cell in image.cells]
    return f'<script type="application/json" class="row">{_json(encoded)}</script>\n'


def _numbers(cell: Cell | None) -> dict[str, object] | None:
    return None if cell is None else {name: value for name, value in vars(cell).items() if name != "data"}


def _json(content: object) -> str:
    """Return JSON, plain ASCII, that cannot end the element it stands in, whatever its strings hold."""
    text = json.dumps(content, separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _template(name: str) -> str:
    return (resources.files(__package__) / "template" / name).read_text(encoding="utf-8")


def _check(panes: Sequence[Pane], images: Sequence[GalleryRow]) -> None:
    if len(panes) < 2 or panes[0].kind != "original":
        raise ConfigError("a gallery needs the originals first, and something to compare them with")
    if not images:
        raise ConfigError("a gallery needs at least one picture")
    for image in images:
        if len(image.cells) != len(panes) or image.cells[0] is None:
            raise ConfigError(f"{image.name}: needs its original and {len(panes) - 1} cells beside it")
