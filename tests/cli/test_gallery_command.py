"""``flowmo gallery`` as users run it: what is in the page, files of a comparison used again, wrong use."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from command_support import CAT, PAYLOAD, Command

FOLDER = CAT.parent
QUICK = ("--limit", 3, "--out", "page.html")


pytestmark = pytest.mark.usefixtures("lpips")


def data_of(path: str) -> Any:
    return json.loads(re.search(r'id="data">(.*?)</script>', Path(path).read_text())[1])  # type: ignore[index]


def test_a_page_of_files_that_a_comparison_chose(flowmo: Command, weights: Path) -> None:
    models = ("--models", weights)
    compared = ("--codecs", "webp", "jpeg", "--bytes", 70, 200, "--metrics", "--limit", 4)
    assert flowmo("compare", FOLDER, *models, *compared, "--out", "c", model=False).code == 0
    again = ("--codecs", "webp", "jpeg", "--bytes", 200, "--compared", "c", *QUICK)
    result = flowmo("gallery", FOLDER, *models, *again, "--json", model=False)
    assert result.code == 0, result.err
    assert result.json["panes"] == ["Original", "small", "RGB thumbnail", "WebP", "JPEG"]
    assert result.json["page_bytes"] == Path("page.html").stat().st_size
    found = data_of("page.html")
    entries = [json.loads(line) for line in Path("c/progress.jsonl").read_text().splitlines()]
    chosen = {
        (key[2], i // 2): choice
        for i, (key, value) in enumerate(entry for entry in entries if entry[0][0] == "coded")
        for choice in value
        if choice[:2] == ["payload", 200]
    }
    for i, picture in enumerate(found["pictures"]):
        ours, webp = picture["cells"][1], picture["cells"][3]
        assert (ours["bytes"], ours["file_bytes"]) == (PAYLOAD, PAYLOAD + 24)
        assert (webp["bytes"], webp["file_bytes"]) == (chosen["webp", i][5], chosen["webp", i][4])
        assert webp["lpips"] == pytest.approx(chosen["webp", i][6], abs=1e-3)
    assert not list(Path().glob("c/*.part"))

    refused = flowmo("gallery", FOLDER, *models, "--bytes", 99, "--compared", "c", *QUICK, "--force", model=False)
    assert refused.code == 2
    assert "has files of 70, 200 bytes" in refused.err


def test_a_broken_picture_is_named_and_the_page_made(flowmo: Command, weights: Path, tmp_path: Path) -> None:
    shutil.copytree(FOLDER, tmp_path / "in")
    names = sorted(path.name for path in (tmp_path / "in").glob("*.jpg"))
    (tmp_path / "in" / names[1]).write_bytes(b"no picture")
    result = flowmo("gallery", "in", "--models", weights, "--codecs", *QUICK[:-1], "page", model=False)
    assert result.code == 1  # and the page has the name that browsers want
    assert names[1] in result.err
    assert [picture["name"] for picture in data_of("page.html")["pictures"]] == [names[0], names[2]]
    assert flowmo("gallery", "in", "--models", weights, "--codecs", *QUICK, model=False).code == 2  # it exists


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--codecs", "bpg"], "there is no codec 'bpg'"),
        (["--out", "."], "is a folder; name the page"),
        (["--bytes", "2"], "too few"),
        (["--compared", "nowhere"], "no result at"),
        (["--models", "nowhere.safetensors"], "nowhere.safetensors"),
        (["--lpips", "nowhere.ckpt"], "nowhere.ckpt"),
        (["--size", "20x20"], "20"),
    ],
)
def test_wrong_use_is_explained(flowmo: Command, weights: Path, flags: list[str], words: str) -> None:
    result = flowmo("gallery", FOLDER, "--models", weights, *flags, "--limit", 2, model=False)
    assert result.code == 2
    assert words in result.err
    assert not list(Path().glob("*.html"))
