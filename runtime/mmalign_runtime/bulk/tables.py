"""Texts or images in a column of Parquet files, read batch by batch; several files are read as one table.

A text is decoded here, not by pyarrow, for which one that is not UTF-8 would be the end of the file.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from mmalign_runtime.bulk.entries import Entry
from mmalign_runtime.bulk.lines import not_utf8
from mmalign_runtime.bulk.listing import readable
from mmalign_runtime.errors import InputError
from mmalign_runtime.names import as_text, is_utf8
from mmalign_runtime.parquet import check_column, open_parquet, reading
from mmalign_runtime.spec import Modality

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq

# The fields of an image in a data set of Hugging Face's: the file's bytes, or else where it lies.
_BYTES, _PATH = "bytes", "path"
# Rows of a Parquet file held in memory at a time; a row may be a whole image.
_ROWS_AT_ONCE = 64
# A Parquet file ends with its footer, the footer's length and four letters.
_FOOTER_TAIL_BYTES = 8
_NAME_LENGTH = 40


def fits(kind: pa.DataType, modality: Modality) -> bool:
    """Say whether a column of this type holds texts; or images, as paths, as files' bytes, or as structs of these."""
    kind = _plain(kind)
    if _is_text(kind):
        return True
    return modality == "image" and (_is_binary(kind) or bool(_image_fields(kind)))


def fits_ids(kind: pa.DataType) -> bool:
    """Say whether a column of this type holds ids: texts, their bytes, whole numbers, UUIDs."""
    from pyarrow import types

    plain = _plain(kind)
    is_whole = types.is_integer(plain) or (types.is_decimal(plain) and plain.scale == 0)
    return is_whole or _is_text(plain) or _is_binary(plain)


def texts(array: pa.Array[Any]) -> list[str | None]:
    """Return a column's texts, or its ids as text; a byte that is not UTF-8 becomes a lone surrogate (PEP 383)."""
    return [None if value is None else _as_text(value) for value in _values(array)]


def images(array: pa.Array[Any]) -> list[str | bytes | None]:
    """Return a column's images: a path as text, a file as bytes."""
    plain = _plain(array.type)
    if _is_text(plain):
        return list(texts(array))
    if not (names := _image_fields(plain)):
        return _values(array)
    columns = [images(_field(array, name)) for name in names]
    return [next((value for value in values if value is not None), None) for values in zip(*columns, strict=True)]


def _values(array: pa.Array[Any]) -> list[Any]:
    """Return the values of a column as they are stored, texts as bytes."""
    import pyarrow as pa

    if isinstance(array, pa.DictionaryArray):
        return _values(array.dictionary.take(array.indices))
    return (array.cast(pa.large_binary()) if _is_text(array.type) else array).to_pylist()


def _as_text(value: object) -> str:
    return value.decode("utf-8", "surrogateescape") if isinstance(value, bytes) else str(value)


def _field(array: pa.Array[Any], name: str) -> pa.Array[Any]:
    import pyarrow.compute as pc

    # Unlike StructArray.field, null where the struct is.
    return cast("pa.Array[Any]", pc.struct_field(cast("pa.StructArray", array), name))


def _image_fields(kind: pa.DataType) -> list[str]:
    """Return the names of the fields that hold an image, its bytes first; none where the type is not such a struct."""
    import pyarrow as pa

    if not isinstance(kind, pa.StructType):
        return []
    fields = {field.name: _plain(field.type) for field in kind}
    found = [_BYTES] if _BYTES in fields and _is_binary(fields[_BYTES]) else []
    return found + ([_PATH] if _PATH in fields and _is_text(fields[_PATH]) else [])


def _plain(kind: pa.DataType) -> pa.DataType:
    """Return the type of the values of a dictionary, and what an extension type such as a UUID is stored as."""
    import pyarrow as pa

    if isinstance(kind, pa.DictionaryType):
        return _plain(kind.value_type)
    return _plain(kind.storage_type) if isinstance(kind, pa.BaseExtensionType) else kind


def _is_text(kind: pa.DataType) -> bool:
    from pyarrow import types

    return types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind)


def _is_binary(kind: pa.DataType) -> bool:
    from pyarrow import types

    is_view = types.is_binary_view(kind)
    return is_view or types.is_binary(kind) or types.is_large_binary(kind) or types.is_fixed_size_binary(kind)


class ParquetSource:
    """A column of one or more Parquet files: texts, image paths, or the bytes of image files.

    Every file must have the column, in a type that fits; rows without an id column are numbered through all of them.
    """

    def __init__(
        self,
        paths: Sequence[Path],
        kind: Modality,
        column: str | None,
        id_column: str | None,
        remarks: tuple[str, ...] = (),
    ) -> None:
        self.remarks = remarks
        self._paths = paths
        self._kind = kind
        self._id_column = id_column
        self._column = column
        self._num_rows: list[int] = []
        for path in paths:
            file = open_parquet(path)
            for name in filter(None, (self._column, id_column)):
                check_column(file, name, path)
            self._column = self._fitting(path, file.schema_arrow)
            self._check_ids(path, file.schema_arrow)
            self._num_rows.append(file.metadata.num_rows)

    def __len__(self) -> int:
        return sum(self._num_rows)

    def __iter__(self) -> Iterator[Entry]:
        return self.entries(0)

    def entries(self, start: int) -> Iterator[Entry]:
        """Yield the rows from number `start` on; row groups before it are not read."""
        first = 0
        for path, num_rows in zip(self._paths, self._num_rows, strict=True):
            if start < first + num_rows:
                yield from self._rows(path, first, max(start - first, 0))
            first += num_rows

    def fingerprint(self) -> str:
        """Return a hash of the columns' names and of every file's footer, which has the sizes and ranges of values."""
        digest = hashlib.sha256(repr((self._column, self._id_column)).encode())
        for path in self._paths:
            digest.update(path.name.encode("utf-8", "surrogateescape") + b"\0" + _footer(path))
        return digest.hexdigest()

    def _rows(self, path: Path, first: int, skipped: int) -> Iterator[Entry]:
        for row, (name, value) in enumerate(self._values(path, skipped), start=skipped):
            yield self._entry(path, self._id(path, row, name) if self._id_column else str(first + row), value)

    def _id(self, path: Path, row: int, name: str | None) -> str:
        where = f"{path}: column {self._id_column!r}, row {row} (from 0)"
        if name is None:
            raise InputError(f"{where} is empty, expected an id. Fill it, or leave --id-column out.")
        if not is_utf8(name):
            seen = as_text(name)[:_NAME_LENGTH]
            raise InputError(f"{where} is not UTF-8 ({seen}), expected a text. Write the ids as text, such as hex().")
        return name

    def _values(self, path: Path, skipped: int) -> Iterator[tuple[str | None, str | bytes | None]]:
        # Mapped, because pyarrow holds a whole row group otherwise, whatever its buffer_size says.
        file = open_parquet(path, memory_map=True)
        groups = list(range(file.metadata.num_row_groups))
        while groups and skipped >= (num_rows := file.metadata.row_group(groups[0]).num_rows):
            skipped -= num_rows
            groups.pop(0)
        pairs = (pair for batch in self._batches(path, file, groups) for pair in self._pairs(batch))
        return islice(pairs, skipped, None)

    def _batches(self, path: Path, file: pq.ParquetFile, groups: list[int]) -> Iterator[pa.RecordBatch]:
        columns = [name for name in dict.fromkeys((self._column, self._id_column)) if name]
        with reading(path):
            yield from file.iter_batches(_ROWS_AT_ONCE, row_groups=groups, columns=columns)

    def _pairs(self, batch: pa.RecordBatch) -> Iterator[tuple[str | None, str | bytes | None]]:
        column = batch.column(str(self._column))
        values: Sequence[str | bytes | None] = texts(column) if self._kind == "text" else images(column)
        names = texts(batch.column(self._id_column)) if self._id_column else [None] * len(values)
        return zip(names, values, strict=True)

    def _entry(self, path: Path, name: str, value: str | bytes | None) -> Entry:
        if not isinstance(value, str):
            return Entry(name, cast("bytes", value))  # or a null, which the encoder reports as an item of its own
        return Entry(name, value, problem=not_utf8(value)) if self._kind == "text" else Entry(name, path.parent / value)

    def _check_ids(self, path: Path, schema: pa.Schema) -> None:
        if self._id_column and not fits_ids(kind := schema.field(self._id_column).type):
            seen = f"{path}: column {self._id_column!r} is {kind}"
            raise InputError(f"{seen}, expected texts or whole numbers as ids. Cast it to text, or name another.")

    def _fitting(self, path: Path, schema: pa.Schema) -> str:
        wanted = "texts" if self._kind == "text" else "image paths or bytes, or structs of `bytes` and `path`"
        fitting = [field.name for field in schema if field.name != self._id_column and fits(field.type, self._kind)]
        if self._column is not None and self._column not in fitting:
            raise InputError(
                f"{path}: column {self._column!r} is {schema.field(self._column).type}, expected {wanted}."
            )
        if self._column is None and len(fitting) != 1:
            names = ", ".join(map(repr, fitting)) or "none"
            raise InputError(f"{path}: columns that could hold {wanted}: {names}. Name one with --column.")
        return self._column or fitting[0]


def _footer(path: Path) -> bytes:
    with readable(path), path.open("rb") as file:
        size_bytes = path.stat().st_size
        file.seek(max(size_bytes - _FOOTER_TAIL_BYTES, 0))
        length = int.from_bytes(file.read(4), "little")
        file.seek(max(size_bytes - _FOOTER_TAIL_BYTES - length, 0))
        return file.read()
