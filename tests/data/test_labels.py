"""Labels of every container: what they may be, and what they are when files disagree."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from flowmo.codec import Shard, read_shard, write_shard
from flowmo.data import open_images, read_labels
from flowmo.errors import ConfigError, DataError, TokenFileError
from flowmo.labels import check_same_classes, checked_labels, merged_labels
from flowmo.quantize.tokens import Tokens


def picture(value: int = 0) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8), (value, 0, 0)).save(buffer, "PNG")
    return buffer.getvalue()


def tar(path: Path, members: list[tuple[str, bytes]]) -> Path:
    with tarfile.open(path, "w") as archive:
        for name, data in members:
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return path


def parquet(path: Path, labels: object, names: list[str] | None = None) -> Path:
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    count = len(labels)  # type: ignore[arg-type]
    table = pa.table({"image": [picture(i) for i in range(count)], "label": labels})
    if names is not None:
        about = {"info": {"features": {"label": {"names": names, "_type": "ClassLabel"}}}}
        table = table.replace_schema_metadata({"huggingface": json.dumps(about)})
    pq.write_table(table, path)
    return path


def labels_of(path: Path, cache: Path) -> dict[str, int | None]:
    source = open_images(path, cache=cache)
    return {source.name(i): source.label(i) for i in range(len(source))}


def test_a_slash_before_a_name_in_a_tar_is_none_of_it(tmp_path: Path) -> None:
    members = [("/a.png", picture()), ("a.cls", b"5"), ("b.png", picture()), ("/b.cls", b"6")]
    assert labels_of(tar(tmp_path / "a.tar", members), tmp_path) == {"a.png": 5, "b.png": 6}


def test_a_mark_before_labels_is_none_of_them(tmp_path: Path) -> None:
    mark = b"\xef\xbb\xbf"
    members = [("a.png", picture()), ("a.cls", mark + b"5"), ("b.png", picture()), ("b.json", mark + b'{"label": 6}')]
    assert labels_of(tar(tmp_path / "a.tar", members), tmp_path) == {"a.png": 5, "b.png": 6}
    (tmp_path / "labels.txt").write_bytes(mark + b"a.png 1\nb.png 2\n")
    assert read_labels(tmp_path / "labels.txt", ["a.png", "b.png"]).tolist() == [1, 2]


def test_images_of_one_key_are_told_where_one_is_kept(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    members = [("key.v1.png", picture()), ("key.v2.png", picture()), ("key.cls", b"5")]
    assert labels_of(tar(tmp_path / "a.tar", members), tmp_path) == {"key.v1.png": 5}
    assert "key.v2.png: was left out (its key and its label are those of key.v1.png)" in caplog.text


@pytest.mark.parametrize("kind", ["uint8", "uint16", "uint32", "uint64", "int8", "int16", "int32", "int64"])
def test_every_integer_type_in_parquet(tmp_path: Path, kind: str) -> None:
    pa = pytest.importorskip("pyarrow")
    top = min(np.iinfo(kind).max, 2**31 - 1)
    source = open_images(parquet(tmp_path / "a.parquet", pa.array([0, None, 2, top], kind)))
    assert [source.label(i) for i in range(4)] == [0, None, 2, top]


@pytest.mark.parametrize(
    ("kind", "wrong"), [("uint32", 2**31), ("int64", 2**32 + 1), ("uint64", 2**64 - 1), ("uint64", 2**63), ("int8", -2)]
)
def test_labels_out_of_range_in_parquet(tmp_path: Path, kind: str, wrong: int) -> None:
    pa = pytest.importorskip("pyarrow")
    with pytest.raises(DataError, match=rf"a\.parquet.*{wrong}"):
        open_images(parquet(tmp_path / "a.parquet", pa.array([0, wrong], kind)))


@pytest.mark.parametrize("wrong", [-2, 2**31, 2**32 + 1])
def test_labels_out_of_range_in_arrays_and_text(tmp_path: Path, wrong: int) -> None:
    np.save(tmp_path / "a.npy", np.zeros((2, 8, 8, 3), np.uint8))
    np.save(tmp_path / "a.labels.npy", np.array([0, wrong]))
    with pytest.raises(DataError, match=rf"labels\.npy.*{wrong}"):
        open_images(tmp_path / "a.npy")
    (tmp_path / "labels.txt").write_text(f"0\n{wrong}\n")
    with pytest.raises(DataError, match=r"labels\.txt"):
        read_labels(tmp_path / "labels.txt", ["a", "b"])


def test_none_in_an_array_is_none(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.zeros((2, 8, 8, 3), np.uint8))
    np.save(tmp_path / "a.labels.npy", np.array([-1, 5]))
    source = open_images(tmp_path / "a.npy")
    assert [source.label(i) for i in range(2)] == [None, 5]


def test_text_labels_of_one_image_twice(tmp_path: Path) -> None:
    (tmp_path / "labels.txt").write_text("a 0\na 1\n")
    with pytest.raises(DataError, match="twice"):
        read_labels(tmp_path / "labels.txt", ["a", "b"])
    (tmp_path / "labels.txt").write_text("0\n1\n")
    with pytest.raises(DataError, match="twice"):
        read_labels(tmp_path / "labels.txt", ["a", "a"])


def test_parquet_files_of_other_orders_are_brought_to_one(tmp_path: Path) -> None:
    parquet(tmp_path / "a.parquet", [0, 1, 1], ["cat", "dog"])
    parquet(tmp_path / "b.parquet", [0, 1, 2], ["dog", "eel", "cat"])
    source = open_images(tmp_path)
    assert source.classes == ["cat", "dog", "eel"]
    words = [source.classes[source.label(i)] for i in range(6)]
    assert words == ["cat", "dog", "dog", "dog", "eel", "cat"]


def test_parquet_files_that_cannot_be_merged(tmp_path: Path) -> None:
    parquet(tmp_path / "a.parquet", [0, 1], ["cat", "dog"])
    parquet(tmp_path / "b.parquet", [0, 1])
    with pytest.raises(DataError, match=r"a\.parquet names its classes, .*b\.parquet does not"):
        open_images(tmp_path)
    parquet(tmp_path / "b.parquet", [0, 1], ["dog", "dog"])
    with pytest.raises(DataError, match=r"b\.parquet.*'dog'"):
        open_images(tmp_path)


def test_equal_lists_may_name_two_classes_alike() -> None:
    """As ImageNet's do: crane is a bird and a machine."""
    names = ["crane", "cat", "crane"]
    labels, classes = merged_labels([("a", np.int32([0, 2]), names), ("b", np.int32([1]), list(names))])
    assert (labels.tolist(), classes) == ([0, 2, 1], names)


def test_a_label_without_a_name(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="2 does not fit 2 names"):
        open_images(parquet(tmp_path / "a.parquet", [0, 2], ["cat", "dog"]))


def test_keys_with_dots(tmp_path: Path) -> None:
    members = [
        (f"img.v{i}.{kind}", picture(i) if kind == "png" else str(i).encode())
        for i in (1, 2)
        for kind in ("png", "cls")
    ]
    path = tar(
        tmp_path / "dots.tar", [*members, ("img.v3.png", picture()), ("plain.png", picture()), ("plain.cls", b"7")]
    )
    assert labels_of(path, tmp_path) == {"img.v1.png": 1, "img.v2.png": 2, "img.v3.png": None, "plain.png": 7}


def test_dates_in_keys_and_labels_in_json(tmp_path: Path) -> None:
    members = [("2024.01.05_cat.png", picture()), ("2024.01.05_cat.json", b'{"label":5}')]
    members += [("2024.02.01_dog.png", picture()), ("2024.02.01_dog.json", b'{"label":6}')]
    assert list(labels_of(tar(tmp_path / "a.tar", members), tmp_path).values()) == [5, 6]


def test_masks_beside_an_image_are_still_left_out(tmp_path: Path) -> None:
    members = [
        ("a.seg.png", picture()),
        ("a.png", picture()),
        ("a.cls", b"3"),
        ("b.seg.png", picture()),
        ("b.png", picture()),
    ]
    assert labels_of(tar(tmp_path / "a.tar", members), tmp_path) == {"a.png": 3, "b.png": None}


@pytest.mark.parametrize("suffix", ["CLS", "Cls", "JSON"])
def test_suffixes_in_capitals(tmp_path: Path, suffix: str) -> None:
    path = tar(tmp_path / "a.tar", [("A.PNG", picture()), (f"A.{suffix}", b"4")])
    assert labels_of(path, tmp_path) == {"A.PNG": 4}


@pytest.mark.parametrize(
    "members",
    [
        [("a.png", b""), ("a.cls", b"1"), ("a.png", b""), ("a.cls", b"2")],
        [("a.png", b""), ("b.png", b""), ("a.png", b"")],
        [("a.png", b""), ("a.cls", b"1"), ("a.cls", b"1")],
        [("a.png", b""), ("a.cls", b"1"), ("a.json", b'{"label": 2}')],
    ],
    ids=["image and label", "image", "label", "two kinds"],
)
def test_members_that_stand_twice(tmp_path: Path, members: list[tuple[str, bytes]]) -> None:
    path = tar(tmp_path / "a.tar", [(name, data or picture()) for name, data in members])
    with pytest.raises(DataError, match=r"a\.tar: .*a\."):
        open_images(path, cache=tmp_path)


@pytest.mark.parametrize("wrong", [b"-5", b"4294967297", b"1" * 4000, b'{"label": 2147483648}'])
def test_labels_out_of_range_in_tars(tmp_path: Path, wrong: bytes) -> None:
    suffix = "json" if wrong.startswith(b"{") else "cls"
    with pytest.raises(DataError, match=rf"a\.tar: a\.{suffix}"):
        open_images(tar(tmp_path / "a.tar", [("a.png", picture()), (f"a.{suffix}", wrong)]), cache=tmp_path)


@pytest.mark.parametrize("wrong", [-1, -7, 2**31, 2**40])
def test_labels_out_of_range_in_shards(tmp_path: Path, wrong: int, monkeypatch: pytest.MonkeyPatch) -> None:
    tokens = Tokens(torch.zeros(2, 4, 2, dtype=torch.int64), 9, (64, 64))
    good = Shard(tokens, ["a", "b"], torch.tensor([0, 1]), 5, "crop", None)
    with pytest.raises(ConfigError, match="labels"):
        Shard(tokens, ["a", "b"], torch.tensor([0, wrong]), 5, "crop", None)
    object.__setattr__(good, "labels", torch.tensor([0, wrong]))
    write_shard(tmp_path / "a.shard", good)
    with pytest.raises(TokenFileError, match=r"a\.shard.*labels"):
        read_shard(tmp_path / "a.shard")


def test_values_that_are_no_integers() -> None:
    for values in ([0.5], [True], ["1"], [None]):
        with pytest.raises(DataError, match=r"here: .*whole numbers"):
            checked_labels(values, "here")
    with pytest.raises(DataError, match="2 labels"):
        checked_labels([1], "here", 2)
    assert checked_labels([], "here", 0).dtype == np.int32


def test_data_sets_that_name_a_class_differently() -> None:
    check_same_classes(["a", "b"], ["a"], "both")
    check_same_classes(None, ["a"], "both")
    with pytest.raises(DataError, match="both name their classes differently: 1 is 'b' in one, 'c' in the other"):
        check_same_classes(["a", "b"], ["a", "c"], "both")
