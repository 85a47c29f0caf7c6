"""Mutated Parquet files, tars, tar indexes and arrays: whatever they are, nothing but our errors and no waiting."""

from __future__ import annotations

import io
import random
import tarfile
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from flowmo.data import open_images
from flowmo.errors import FlowMoError


def picture(value: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8), (value, 0, 0)).save(buffer, "PNG")
    return buffer.getvalue()


def make(kind: str, folder: Path) -> list[Path]:
    """Whole files of a kind; the first is what is opened."""
    if kind == "parquet":
        pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
        images = [{"bytes": picture(k), "path": f"{k}.png"} for k in range(3)]
        pq.write_table(pa.table({"image": images, "label": [0, 1, 2]}), folder / "a.parquet")
        return [folder / "a.parquet"]
    if kind == "npy":
        np.save(folder / "a.npy", np.zeros((2, 4, 4, 3), np.uint8))
        return [folder / "a.npy"]
    if kind == "labels":
        np.save(folder / "a.npy", np.zeros((2, 4, 4, 3), np.uint8))
        np.save(folder / "a.labels.npy", np.array([0, 1]))
        return [folder / "a.npy", folder / "a.labels.npy"]
    with tarfile.open(folder / "a.tar", "w") as tar:
        for name, data in (("a.png", picture(1)), ("a.cls", b"1"), ("b" * 120 + ".png", picture(2))):
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    if kind == "tar":
        return [folder / "a.tar"]
    open_images(folder / "a.tar", cache=folder)
    return [folder / "a.tar", *(folder / "tar-indexes").glob("*.npz")]


def mutated(data: bytes, rng: random.Random) -> bytes:
    out = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 5))):
        place = rng.randrange(len(out))
        if rng.random() < 0.5:  # where Parquet and zip have their directories
            place = max(0, len(out) - 1 - rng.randrange(min(900, len(out))))
        way = rng.randrange(4)
        if way == 0:
            out[place] ^= 1 << rng.randrange(8)
        elif way == 1:
            out[place] = rng.choice((0, 1, 127, 128, 255, ord("-"), ord("9")))
        elif way == 2:
            length = rng.randrange(1, 9)
            out[place : place + length] = bytes(rng.choice((0, 255, rng.randrange(256))) for _ in range(length))
        elif len(out) > 20:
            del out[place : place + rng.randrange(1, 17)]
    return bytes(out)


def fuzz(kind: str, count: int, folder: Path) -> Counter[str]:
    opened, *others = make(kind, folder)
    target = others[0] if others else opened
    whole, rng, results = target.read_bytes(), random.Random(f"{kind}{count}"), Counter[str]()
    for _ in range(count):
        target.write_bytes(mutated(whole, rng))
        cache = folder if kind == "index" else folder / "none"
        try:
            source = open_images(opened, cache=cache)
        except FlowMoError:
            results["refused"] += 1
            continue
        finally:
            for file in (folder / "none").glob("*/*.npz"):
                file.unlink()
        broken = 0
        for i in range(min(len(source), 4)):
            source.label(i)
            source.name(i)
            try:
                source[i]
            except FlowMoError:
                broken += 1
        results["broken images" if broken else "whole"] += 1
    return results


KINDS = ["parquet", "tar", "index", "npy", "labels"]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", KINDS)
def test_five_hundred_mutations(kind: str, tmp_path: Path) -> None:
    results = fuzz(kind, 500, tmp_path)
    assert results.total() == 500
    assert kind == "index" or results["refused"] + results["broken images"] > 100


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", KINDS)
def test_ten_thousand_mutations(kind: str, tmp_path: Path) -> None:
    results = fuzz(kind, 10_000, tmp_path)
    print(kind, dict(results))
    assert results.total() == 10_000
