"""Parquet files that repeat one value many times: what is stored once is held once, and numbers that a file of its size
cannot hold are refused."""

from __future__ import annotations

import io
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import warm_python
from flowmo.data import open_images
from flowmo.data.parquet_pages import column_chunks, unpacked_size
from flowmo.errors import DataError

pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
resource = pytest.importorskip("resource")

READ = """
import resource, sys
from flowmo.data import open_images
import pyarrow.parquet
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
try:
    source = open_images(sys.argv[1])
    print(len(source), source[len(source) - 1].size)
except Exception as error:
    print(type(error).__name__, error)
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""


def picture(padding: int = 0) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(np.arange(192, dtype=np.uint8).reshape(8, 8, 3)).save(stream, "PNG")
    return stream.getvalue() + bytes(padding)


def repeated(values: list[Any], times: int, kind: Any) -> Any:
    """An array of so many values, the last ones the first value again and again, without holding them."""
    indices = pa.array([*range(len(values)), *[0] * (times - len(values))], pa.int32())
    return pa.DictionaryArray.from_arrays(indices, pa.array(values, kind))


def write(path: Path, images: Any, paths: Any = None) -> Path:
    paths = pa.nulls(len(images), pa.string()) if paths is None else paths
    struct = pa.StructArray.from_arrays([images, paths], ["bytes", "path"])
    pq.write_table(pa.table({"image": struct}), path, dictionary_pagesize_limit=2**30, store_schema=False)
    return path


def read(path: Path) -> tuple[str, int]:
    """What came of it, and the megabytes that it took."""
    words, environment = [warm_python.python(), "-c", READ, str(path)], warm_python.environment()
    done = subprocess.run(words, env=environment, capture_output=True, text=True, check=True)
    *said, taken = done.stdout.strip().splitlines()
    return " ".join(said), int(taken)


def test_an_image_that_is_stored_once_is_held_once(tmp_path: Path) -> None:
    """Sixteen megabytes, named a hundred times: 1.6 GB when it is written out."""
    path = write(tmp_path / "a.parquet", repeated([picture(2**24), picture()], 100, pa.binary()))
    said, megabytes = read(path)
    assert said == "100 (8, 8)"
    assert megabytes < 300
    source = open_images(path)
    assert source.encoded(1) == picture()  # type: ignore[attr-defined]
    assert source.encoded(99) == picture(2**24)  # type: ignore[attr-defined]


@pytest.mark.parametrize("kind", ["binary", "large_binary"])
def test_images_and_gaps_are_read_as_they_are(tmp_path: Path, kind: str) -> None:
    values = [picture(), None, picture(3), picture()]
    path = write(tmp_path / "a.parquet", pa.array(values, getattr(pa, kind)()))
    source = open_images(path)
    assert [source.encoded(i) for i in (0, 2, 3)] == [picture(), picture(3), picture()]  # type: ignore[attr-defined]
    with pytest.raises(Exception, match="has no bytes"):
        source[1]


def test_a_long_path_that_is_repeated_is_refused(tmp_path: Path) -> None:
    images = pa.array([picture()] * 2000, pa.binary())
    path = write(tmp_path / "a.parquet", images, repeated(["x" * 2**20], 2000, pa.string()))
    said, megabytes = read(path)
    assert said.startswith("DataError")
    assert "2,000 paths of 2,097,152,000 bytes" in said
    assert megabytes < 300


def test_more_rows_than_a_file_can_hold_are_refused(tmp_path: Path) -> None:
    """A hundred million labels of nothing take a few bytes."""
    rows = 10**8
    nothing = pa.DictionaryArray.from_arrays(pa.nulls(10**6, pa.int8()), pa.array([picture()], pa.binary()))
    schema = pa.schema([("image", nothing.type)])
    with pq.ParquetWriter(tmp_path / "a.parquet", schema, store_schema=False) as writer:
        for _ in range(rows // 10**6):
            writer.write_table(pa.Table.from_arrays([nothing], schema=schema))
    assert (tmp_path / "a.parquet").stat().st_size < rows // 10
    said, megabytes = read(tmp_path / "a.parquet")
    assert said.startswith("DataError")
    assert "claim to hold 100,000,000 images" in said
    assert megabytes < 300


def test_the_same_in_one_process(tmp_path: Path) -> None:
    images = pa.array([picture()] * 20, pa.binary())
    path = write(tmp_path / "a.parquet", images, repeated(["x" * 2**20], 20, pa.string()))
    with pytest.raises(DataError, match="20 paths of 20,971,520 bytes"):
        open_images(path)


@pytest.mark.parametrize(("column", "said"), [("image", "ImageError"), ("path", "DataError"), ("label", "DataError")])
def test_a_footer_that_lies_about_its_pages_is_refused(column: str, said: str, tmp_path: Path) -> None:
    """Some kilobytes of zstd that become 300 megabytes, in a file whose footer says a thousand bytes."""
    zeros = bytes(300 * 2**20)
    image = [{"bytes": zeros if column == "image" else picture(), "path": "a" if column != "path" else zeros.decode()}]
    table = pa.table({"image": image, "label": pa.array([zeros.decode()] if column == "label" else ["1"])})
    stream = io.BytesIO()
    pq.write_table(table, stream, compression="zstd", use_dictionary=False, write_statistics=False, store_schema=False)
    data = stream.getvalue()
    metadata = pq.ParquetFile(io.BytesIO(data)).metadata.row_group(0)
    sizes = {metadata.total_byte_size, *(metadata.column(i).total_uncompressed_size for i in range(3))}
    start = len(data) - 8 - int.from_bytes(data[-8:-4], "little")
    footer = data[start:]
    for size in sizes:
        if size > 10_000:
            assert number(size, 0) in footer
            footer = footer.replace(number(size, 0), number(1000, len(number(size, 0))))
    path = tmp_path / "a.parquet"
    path.write_bytes(data[:start] + footer)
    assert path.stat().st_size < 100_000
    assert pq.ParquetFile(path).metadata.row_group(0).total_byte_size == 1000
    found, megabytes = read(path)
    assert found.startswith(said if column != "image" else ("DataError", "ImageError"))
    assert "claim to hold 314,57" in found
    assert megabytes < 100


def number(value: int, length: int) -> bytes:
    """The number as Thrift writes it in so many bytes, zeros in front if need be."""
    value, found = 2 * value, bytearray()
    while value or len(found) < length:
        found.append(value & 127 | 128)
        value >>= 7
    return bytes([*found[:-1], found[-1] & 127])


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"compression": "zstd", "data_page_size": 100},
        {"use_dictionary": False, "row_group_size": 3},
        {"data_page_version": "2.0", "write_page_index": True},
    ],
)
def test_pages_are_counted_as_the_footer_counts_them(options: dict[str, Any], tmp_path: Path) -> None:
    random = np.random.RandomState(0)
    images = [{"bytes": random.bytes(5000 + i), "path": f"{i}.png"} for i in range(30)]
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"image": images, "label": range(30), "odd": [True, False] * 15}), path, **options)
    metadata = pq.ParquetFile(path).metadata
    found = column_chunks(path)
    assert len(found) == metadata.num_row_groups
    with path.open("rb") as stream:
        for g, chunks in enumerate(found):
            columns = [metadata.row_group(g).column(i) for i in range(metadata.num_columns)]
            assert [*chunks] == [column.path_in_schema for column in columns]
            for column in columns:
                size = unpacked_size(stream, chunks[column.path_in_schema])
                headers = column.total_uncompressed_size - size  # they count in the footer
                assert 0 < headers < 60 * (2 + size // 100)
                assert chunks[column.path_in_schema].length == column.total_compressed_size
    source = open_images(path)
    assert source.encoded(29) == images[29]["bytes"]  # type: ignore[attr-defined]
