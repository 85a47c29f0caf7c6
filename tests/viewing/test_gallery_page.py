"""The gallery's file: everything inside, pictures without loss, names that do nothing, colours that can be read."""

from __future__ import annotations

import base64
import io
import json
import re
from collections.abc import Callable
from importlib import resources
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from torch import Tensor

from flowmo.data import to_image
from flowmo.errors import ConfigError
from flowmo.viewing.gallery import Cell, GalleryRow, Pane, lossless, write_gallery

PANES = [Pane("Original", "original"), Pane("ours", "model", "about it")]
EVIL = [
    "<script>document.title='evil'</script>.png",
    "</script><h1 id='evil'>.png",
    "<!--<script>.png",
    '"><img src=x onerror=alert(1)>.png',
    "{{script}} &amp; \u2028.png",
    "caf\udce9.jpg",  # bytes that are no UTF-8, as Python reads such a file's name
]


def page(path: Path, names: list[str], image: Image.Image, title: str = "t") -> str:
    cell = Cell(lossless(image), 144, 168, 20.0, 0.25)
    pictures = [GalleryRow(name, [Cell(cell.data), cell]) for name in names]
    size = write_gallery(path, PANES, pictures, (image.height, image.width), title, ["a <b> note"])
    assert size == path.stat().st_size
    return path.read_text()


@pytest.fixture(scope="module")
def photo(samples: Callable[[int], Tensor]) -> Image.Image:
    return to_image(samples(48)[2])


def test_pictures_are_kept_to_the_last_bit(photo: Image.Image, tmp_path: Path) -> None:
    text = page(tmp_path / "p.html", ["a", "b"], photo)
    rows = [json.loads(row) for row in re.findall(r'class="row">(.*?)</script>', text)]
    assert [len(row) for row in rows] == [2, 2]
    for encoded in rows[0] + rows[1]:
        found = Image.open(io.BytesIO(base64.b64decode(encoded)))
        assert np.array_equal(np.asarray(found.convert("RGB")), np.asarray(photo))


def test_nothing_is_fetched(photo: Image.Image, tmp_path: Path) -> None:
    """No address outside the file stands in it, and its policy would not let the browser ask for one."""
    text = page(tmp_path / "p.html", ["a"], photo)
    assert not re.search(
        r"https?:|//\w+\.|url\(|@import|<link(?! rel=\"icon\" href=\"data:,\")|<(a|iframe|form)\b", text
    )
    assert "content=\"default-src 'none'; img-src data:; style-src 'sha256-" in text
    assert "unsafe" not in text


def test_names_cannot_become_a_part_of_the_page(photo: Image.Image, tmp_path: Path) -> None:
    text = page(tmp_path / "p.html", EVIL, photo, title="</title><script>alert(1)</script>")
    plain = page(tmp_path / "q.html", ["x"] * len(EVIL), photo)
    for tag in ("<script", "</script", "<h1", "<img", "<!--", "</title"):
        assert text.lower().count(tag) == plain.lower().count(tag)
    data = json.loads(re.search(r'id="data">(.*?)</script>', text)[1])
    assert [picture["name"] for picture in data["pictures"]] == EVIL
    assert "a &lt;b&gt; note" in text


def test_it_is_written_as_a_whole_or_not_at_all(photo: Image.Image, tmp_path: Path) -> None:
    path = tmp_path / "new" / "p.html"
    page(path, ["a"], photo)
    before = path.read_bytes()
    bad = GalleryRow("b", [Cell(lossless(photo)), Cell(lossless(photo), psnr=float("inf"))])
    with pytest.raises(ValueError, match="JSON"):
        write_gallery(path, PANES, [bad], (48, 48), "t")
    assert path.read_bytes() == before
    assert [file.name for file in path.parent.iterdir()] == ["p.html"]


def test_panes_and_pictures_must_fit(photo: Image.Image, tmp_path: Path) -> None:
    cell = Cell(lossless(photo))
    for panes, pictures in (
        (PANES, []),
        (PANES, [GalleryRow("a", [cell])]),
        (PANES, [GalleryRow("a", [None, cell])]),
        (PANES[::-1], [GalleryRow("a", [cell, cell])]),
        (PANES[:1], [GalleryRow("a", [cell])]),
    ):
        with pytest.raises(ConfigError):
            write_gallery(tmp_path / "p.html", panes, pictures, (48, 48), "t")
    assert not (tmp_path / "p.html").exists()


def test_text_stands_out_from_its_ground() -> None:
    """4.5 to 1 or more in both themes, 3 to 1 for the edges of what can be pressed (WCAG 2.2, 1.4.3 and 1.4.11)."""
    style = (resources.files("flowmo.viewing.gallery") / "template" / "page.css").read_text()
    blocks = re.findall(r"^:root[^{]*\{(.*?)\}", style, flags=re.MULTILINE | re.DOTALL)
    assert len(blocks) == 2
    for block in blocks:
        colours = dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6});", block))
        for text, grounds in {
            "text": ("page", "surface", "tint"),
            "quiet": ("page", "surface", "tint", "well"),
            "accent": ("surface", "page"),
            "on-accent": ("accent",),
        }.items():
            for ground in grounds:
                assert contrast(colours[text], colours[ground]) >= 4.5, (text, ground)
        assert contrast(colours["edge"], colours["surface"]) >= 3
        assert contrast(colours["edge"], colours["page"]) >= 3


def contrast(a: str, b: str) -> float:
    def luminance(colour: str) -> float:
        levels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4 for v in levels]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    darker, lighter = sorted((luminance(a), luminance(b)))
    return (lighter + 0.05) / (darker + 0.05)
