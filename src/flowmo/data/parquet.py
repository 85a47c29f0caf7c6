"""Images in Parquet files, in the layout of Hugging Face: small sets from memory, large ones row group by row group."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from ..errors import DataError, ImageError
from ..files import folder_in_words
from ..image_utils.decode import MAX_ENCODED_BYTES, decode
from ..image_utils.notes import note
from ..image_utils.regular import NotRegularError, check_regular
from ..labels import MOST, NONE, checked_labels, merged_labels, whole_labels
from .parquet_pages import Chunk, column_chunks, unpacked_size
from .sources import classes_text

IN_MEMORY = 2**30
"""Bytes of row groups, uncompressed, up to which a set is kept in memory. Of a larger one each image costs the reading
of its row group (100 images as Hugging Face writes them); the last group read is kept for reading in order."""


_MOST_SHRUNK, _SMALL = 50, 2**26  # how often the packed size, and bytes that any row group may be unpacked to
_MOST_IN_DICTIONARY = 2**31 - 2  # bytes that an Arrow dictionary can hold; larger row groups are read value by value
_FEW_ROWS = 100_000
_MOST_PATH = 4096  # bytes of a path, on average


class _Group(NamedTuple):
    """A row group of a file, and where it lies."""

    file: int  # the place of its file in the list
    number: int  # its own, in the file
    first: int  # its first row, in the file
    rows: int  # how many it has
    size: int  # bytes when it is unpacked
    images: Chunk  # where the images are in the file


class ParquetSource:
    """``image``: a struct of bytes and path, or plain bytes; optional integer ``label``.

    Raises DataError where the files are no such, or pyarrow is missing.
    """

    def __init__(self, files: Sequence[Path], limit: int | None = None) -> None:
        try:
            import pyarrow as pa
        except ImportError:
            raise DataError("reading Parquet needs pyarrow: pip install 'flowmo[data]'") from None
        self.files = list(files)
        self._metadata: list[Any] = []
        groups: list[_Group] = []
        paths, labels = [], []
        for number, file in enumerate(self.files):
            if limit is not None and sum(group.rows for group in groups) >= limit:
                break
            try:
                new, about = self._open(number, file)
            except DataError:
                raise
            except NotRegularError as error:
                raise DataError(f"{file}: {error}") from None
            except PermissionError:
                raise DataError(f"{file}: may not be read; check its permissions") from None
            except Exception as error:  # pyarrow raises its own, and what its binding meets in damaged metadata
                raise DataError(f"{file}: not a Parquet file that can be read ({error}); fetch it again") from None
            groups += new
            paths.append(about[0])
            labels.append((str(file), *about[1:]))
        self._groups = groups
        self._starts = np.cumsum([0, *(group.rows for group in groups)])
        self._length = min(int(self._starts[-1]), limit) if limit is not None else int(self._starts[-1])
        if not self._length:
            raise DataError(f"{self.files[0]}: holds no images")
        self._paths = pa.chunked_array(paths, pa.large_string())
        found, self.classes = merged_labels(labels)
        found = found[: self._length]
        self.labels = found if (found >= 0).any() else None
        self._last: tuple[int, Any] = (-1, None)
        self._memory: list[Any] | None = None
        used = int(np.searchsorted(self._starts, self._length))
        if sum(group.size for group in groups[:used]) <= IN_MEMORY:
            self._memory = [self._read(number) for number in range(used)]

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, index: int) -> Image.Image:
        return decode(self.encoded(index), self.name(index))

    def encoded(self, index: int) -> bytes:
        """Return the image's file as it is stored. Raises ImageError where there is none."""
        number, row = self._place(index)
        try:
            value = self._group(number)[row]
            data = getattr(value, "value", value).as_buffer() if value.is_valid else None
            size = 0 if data is None else data.size
        except DataError as error:  # its row group is damaged, the others may not be
            raise ImageError(f"{self.name(index)}: {error}") from None
        if size > MAX_ENCODED_BYTES:
            raise ImageError(f"{self.name(index)}: too large ({size:,} bytes stored; at most {MAX_ENCODED_BYTES:,})")
        if not data:
            raise ImageError(f"{self.name(index)}: has no bytes in {self.files[0].parent}")
        return data.to_pybytes()

    def label(self, index: int) -> int | None:
        label = -1 if self.labels is None else int(self.labels[index])
        return label if label >= 0 else None

    def name(self, index: int) -> str:
        path = self._paths[range(len(self))[index]].as_py()
        number, row = self._place(index)
        group = self._groups[number]
        return path or f"{self.files[group.file].name}:{group.first + row}"

    def describe(self) -> str:
        several = f"{len(self.files)} Parquet files of {folder_in_words(self.files[0].parent)}"
        where = self.files[0] if len(self.files) == 1 else several
        return f"{len(self)} images in {where}" + classes_text(self.labels)

    def _open(self, number: int, file: Path) -> tuple[list[_Group], tuple[Any, np.ndarray, list[str] | None]]:
        """Return the row groups of a file, and its paths as text, its labels, -1 for none, and the names of those."""
        import pyarrow as pa
        import pyarrow.compute as pc
        import pyarrow.parquet as pq

        check_regular(file)
        with pq.ParquetFile(file) as parquet:
            schema = parquet.schema_arrow
            kind = schema.field("image").type if "image" in schema.names else None
            if kind is None or not (_is_binary(kind) or (pa.types.is_struct(kind) and _has(kind, "bytes", _is_binary))):
                raise DataError(f"{file}: needs a column 'image' of encoded bytes, found columns {schema.names}")
            rows = parquet.metadata.num_rows
            _check_rows(rows, file)
            chunks = column_chunks(file)
            for g in range(parquet.metadata.num_row_groups):
                _check_unpacked(file.stat().st_size, parquet.metadata.row_group(g).total_byte_size)
                _check_pages(file, [chunks[g][name] for name in ("label", "image.path") if name in chunks[g]])
            paths, labels = pa.nulls(rows, pa.large_string()), np.full(rows, NONE, np.int32)
            classes = None
            if pa.types.is_struct(kind) and _has(kind, "path", _is_text):
                with pq.ParquetFile(file, metadata=parquet.metadata, read_dictionary=["image.path"]) as repeated:
                    read = [_read_group(repeated, g, "image.path") for g in range(repeated.metadata.num_row_groups)]
                paths = pa.concat_arrays([pa.nulls(0, pa.large_string()), *map(_written_out, read)])
                paths.validate(full=True)  # offsets, and that it is UTF-8
            column = None
            if "label" in schema.names:
                column = _whole_numbers(parquet.read(columns=["label"], use_threads=False).column("label"), file)
            if column is not None:
                # Null is none. What does not fit int64 is refused here, since the cast would fail in its own words.
                if pa.types.is_unsigned_integer(column.type) and (pc.max(column).as_py() or 0) > MOST:
                    checked_labels([pc.max(column).as_py()], str(file))
                classes = _class_names(schema.metadata or {})
                values = pc.fill_null(column.cast(pa.int64()), NONE).to_numpy()
                labels = checked_labels(values, str(file), rows, classes)
            self._metadata.append(parquet.metadata)
            groups, first = [], 0
            for g in range(parquet.metadata.num_row_groups):
                group = parquet.metadata.row_group(g)
                images = chunks[g]["image.bytes" if pa.types.is_struct(kind) else "image"]
                groups.append(_Group(number, g, first, group.num_rows, group.total_byte_size, images))
                first += group.num_rows
            if first != rows or len(paths) != rows or any(group.rows < 0 for group in groups):
                raise DataError(f"{file}: damaged: its row groups have {first} rows, its columns {rows}")
        return groups, (paths, labels, classes)

    def _place(self, index: int) -> tuple[int, int]:
        """Return the row group of an image, and its row in there."""
        index = range(len(self))[index]
        number = int(np.searchsorted(self._starts, index, "right")) - 1
        return number, index - int(self._starts[number])

    def _group(self, number: int) -> Any:
        if self._memory is not None:
            return self._memory[number]
        last, column = self._last
        if last != number:
            column = self._read(number)
            self._last = (number, column)
        return column

    def _read(self, number: int) -> Any:
        """Return the encoded images of a row group, as an Arrow array.

        One that repeats images holds each of them once.
        """
        import pyarrow as pa
        import pyarrow.parquet as pq

        group = self._groups[number]
        file = self.files[group.file]
        try:
            metadata = self._metadata[group.file]
            struct = pa.types.is_struct(metadata.schema.to_arrow_schema().field("image").type)
            name = "image.bytes" if struct else "image"
            _check_pages(file, [group.images])
            repeated = [name] if group.size < _MOST_IN_DICTIONARY else []
            with pq.ParquetFile(file, metadata=metadata, read_dictionary=repeated) as parquet:
                array = _read_group(parquet, group.number, name)
            if len(array) != group.rows:
                raise ValueError(f"{len(array)} values of {group.rows}")
            if repeated:
                array.validate(full=True)  # that what it repeats is there
        except Exception as error:  # pyarrow raises its own, and what its binding meets in damaged metadata
            raise DataError(f"{file}: cannot be read ({error}); fetch it again") from None
        return array

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_last": (-1, None)}


def _read_group(parquet: Any, number: int, name: str) -> Any:
    """Return one column of a row group as an Arrow array: ``image``, or a part of it such as ``image.path``."""
    import pyarrow.compute as pc

    array = parquet.read_row_group(number, [name], use_threads=False).column("image").combine_chunks()
    part = name.partition(".")[2]
    return pc.struct_field(array, part) if part else array


def _check_unpacked(packed: int, unpacked: int) -> None:
    """Raise ValueError for a row group that unpacks to much from next to nothing.

    Encoded images do not shrink, and whoever reads it would need a multiple of that.

    The row group as a whole is asked, never a column of it: pyarrow ends the process where a column's metadata are
    broken and Python asks for them. Where it reads the column it raises an error.
    """
    if not 0 <= unpacked <= max(_SMALL, _MOST_SHRUNK * packed):
        raise ValueError(f"{packed:,} bytes claim to hold {unpacked:,} in a row group")


def _check_pages(file: Path, chunks: Sequence[Chunk]) -> None:
    """Raise ValueError where the pages of these columns claim more than :func:`_check_unpacked` takes."""
    with file.open("rb") as stream:
        for chunk in chunks:
            _check_unpacked(file.stat().st_size, unpacked_size(stream, chunk))


def _check_rows(rows: int, file: Path) -> None:
    """Raise DataError for more rows than a file of its size can hold images.

    A number that is repeated a billion times takes a few bytes.
    """
    if rows > max(_FEW_ROWS, file.stat().st_size):
        raise DataError(f"{file}: {file.stat().st_size:,} bytes claim to hold {rows:,} images; fetch it again")


def _whole_numbers(column: Any, file: Path) -> Any:
    """Return a column of labels as integers; None, with a note, for a column of anything else.

    Integers are taken, floats and texts that write some, and truth values.
    """
    import pyarrow as pa

    if pa.types.is_integer(column.type):
        return column
    found = whole_labels(np.array([*column.to_pylist(), None], object)[:-1])
    if found is None:
        note(str(file), f"its labels were left out (they are of the type {column.type}, and not all whole numbers)")
        return None
    return pa.chunked_array([pa.array(checked_labels(found, str(file)), pa.int64())])


def _written_out(paths: Any) -> Any:
    """Return an array of repeated texts as one of plain texts.

    Raises ValueError for texts that are gigabytes only because they are repeated, or are no UTF-8.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    paths.validate(full=True)  # offsets, indices, and that it is UTF-8
    if pa.types.is_dictionary(paths.type) and len(paths):
        total = pc.sum(pc.binary_length(paths.dictionary.cast(pa.large_string())).take(paths.indices)).as_py() or 0
        if total > _MOST_PATH * len(paths):
            raise ValueError(f"{len(paths):,} paths of {total:,} bytes")
    return paths.cast(pa.large_string())


def _class_names(metadata: dict[bytes, bytes]) -> list[str] | None:
    """Return the names of the labels, as Hugging Face writes them beside the columns."""
    try:
        names = json.loads(metadata[b"huggingface"])["info"]["features"]["label"]["names"]
    except (KeyError, ValueError, TypeError, RecursionError):
        return None
    texts = isinstance(names, list) and all(isinstance(name, str) and _is_unicode(name) for name in names)
    return names if texts else None


def _is_unicode(text: str) -> bool:
    """Return whether a text can be written: JSON may hold one half of a pair of surrogates."""
    return not any("\ud800" <= letter <= "\udfff" for letter in text)


def _is_binary(kind: Any) -> bool:
    import pyarrow as pa

    return pa.types.is_binary(kind) or pa.types.is_large_binary(kind)


def _is_text(kind: Any) -> bool:
    import pyarrow as pa

    return pa.types.is_string(kind) or pa.types.is_large_string(kind)


def _has(struct: Any, name: str, test: Any) -> bool:
    return struct.get_field_index(name) >= 0 and test(struct.field(name).type)
