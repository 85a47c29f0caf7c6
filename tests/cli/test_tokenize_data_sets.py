"""flowmo tokenize with a shard as output: data sets of every kind, their labels and the names of their classes."""

from __future__ import annotations

from pathlib import Path

import pytest
from command_support import PICTURES, Command
from PIL import Image

from flowmo.codec import read_shard


def test_parquet_brings_labels_and_names(flowmo: Command, shared: Path) -> None:
    data = shared / "data" / "tiny64"
    result = flowmo(
        "tokenize", data, "--split", "validation", "--limit", 20, "--out", "v.shard", "--size", 32, "--json"
    )
    assert result.code == 0
    assert result.json["images"] == 20
    assert result.json["classes"][14] == "Labrador retriever"
    shard = read_shard("v.shard")
    assert shard.labels is not None
    assert shard.classes is not None
    named = flowmo(
        "tokenize", data, "--split", "train", "--limit", 3, "--size", 32,
        "--class-names", data / "classes.json", "--shard", "t.safetensors",
    )  # fmt: skip
    assert named.code == 0
    assert "images/s" in named.out
    assert "n01443537 goldfish" in named.out
    assert flowmo("info", "t.safetensors", model=False).code == 0


def test_labels_from_a_file(flowmo: Command) -> None:
    Path("labels.txt").write_text("cat.jpg 2\nastronaut.jpg 0\n")
    Path("names.txt").write_text("person\nwall\npet\n")
    pictures = [path for path in PICTURES if path.stem in ("cat", "astronaut")]
    arguments = ["tokenize", *pictures, "--out", "s.shard", "--label-file", "labels.txt", "--class-names", "names.txt"]
    assert flowmo(*arguments).code == 0
    shard = read_shard("s.shard")
    assert shard.labels is not None
    assert dict(zip(shard.names, shard.labels.tolist(), strict=True)) == {"cat.jpg": 2, "astronaut.jpg": 0}
    assert shard.classes == ["person", "wall", "pet"]


@pytest.mark.parametrize(
    ("labels", "names", "said"),
    [
        ("1\n", None, "needs 2 lines"),
        ("1\n2\n3\n", None, "needs 2 lines"),
        ("1\ncat\n", None, "must all be integers"),
        ("cat.jpg 1\ndog.jpg 2\n", None, "has no line for"),
        ("0\n3\n", "a\nb\n", "labels from 0 to 3 do not fit 2 names of classes"),
        ("0\n3\n", "\n", "holds no names"),
    ],
)
def test_label_files_that_do_not_fit(flowmo: Command, labels: str, names: str | None, said: str) -> None:
    Path("labels.txt").write_text(labels)
    more = []
    if names is not None:
        Path("names.txt").write_text(names)
        more = ["--class-names", "names.txt"]
    result = flowmo("tokenize", *PICTURES[:2], "--out", "s.shard", "--label-file", "labels.txt", *more)
    assert result.code == 2
    assert said in result.err
    assert not Path("s.shard").exists()


def test_names_of_labels_that_are_not_there(flowmo: Command) -> None:
    Path("names.txt").write_text("a\nb\n")
    result = flowmo("tokenize", PICTURES[0], "--out", "s.shard", "--class-names", "names.txt")
    assert result.code == 2
    assert "these pictures have none; give --labels or --label-file" in result.err


def test_class_folders(flowmo: Command) -> None:
    for i, name in enumerate(("b/1.png", "a/2.png", "b/3.png")):
        Path("data", name).parent.mkdir(parents=True, exist_ok=True)
        Image.open(PICTURES[i]).resize((40, 40)).save(Path("data", name))
    assert flowmo("tokenize", "data", "--labels", "--out", "s.shard").code == 0
    shard = read_shard("s.shard")
    assert shard.labels is not None
    assert (shard.names, shard.labels.tolist(), shard.classes) == (
        ["a/2.png", "b/1.png", "b/3.png"],
        [0, 1, 1],
        ["a", "b"],
    )
    without = flowmo("tokenize", "data", "--out", "u.shard")
    assert "without labels" in without.out
    assert read_shard("u.shard").labels is None


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--labels"], "--labels is for a shard"),
        (["--limit", 3, "--out", "folder"], "--count is for a shard"),
        (["--label-file", "x", "--out", "folder"], "--label-file is for a shard"),
        (["--split", "train", "--out", "s.shard"], "--split is for a data set"),
        (["--shard", "s.bin"], "ends in .shard or .safetensors"),
        (["--shard", "s.shard", "--device", "toaster"], "--device toaster"),
        (["--out", "s.shard", "--class-names", "missing"], "missing"),
    ],
)
def test_wrong_use_of_shards(flowmo: Command, arguments: list, said: str) -> None:
    result = flowmo("tokenize", *PICTURES[:2], *arguments)
    assert result.code == 2
    assert said in result.err
    assert not list(Path().iterdir())


def test_an_existing_shard_is_not_overwritten(flowmo: Command) -> None:
    assert flowmo("tokenize", PICTURES[0], "--out", "s.shard").code == 0
    before = Path("s.shard").read_bytes()
    assert flowmo("tokenize", PICTURES[1], "--out", "s.shard").code == 2
    assert Path("s.shard").read_bytes() == before
    assert flowmo("tokenize", PICTURES[1], "--out", "s.shard", "--force").code == 0
    assert Path("s.shard").read_bytes() != before
