"""Texts or images in a column of Parquet files, read batch by batch; several files are read as one table."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, cast

from mmalign_runtime.bulk.entries import Entry
from mmalign_runtime.bulk.listing import readable
from mmalign_runtime.errors import InputError
from mmalign_runtime.parquet import check_column, open_parquet, reading
from mmalign_runtime.spec import Modality

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq

# Rows of a Parquet file held in memory at a time; a row may be a whole image.
_ROWS_AT_ONCE = 64
# A Parquet file ends with its footer, the footer's length and four letters.
_FOOTER_TAIL_BYTES = 8


class ParquetSource:
    """A column of one or more Parquet files: texts, image paths, or the bytes of image files.

    Every file must have the column, in a type that fits; rows without an id column are numbered through all of them.
    """

    def __init__(self, paths: Sequence[Path], kind: Modality, column: str | None, id_column: str | None) -> None:
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
        numbered = enumerate(self._values(path, skipped), start=first + skipped)
        for number, (name, value) in numbered:
            if self._id_column and name is None:
                raise InputError(f"{path}: column {self._id_column!r} has an empty row. Fill it, or leave it out.")
            yield Entry(str(name) if self._id_column else str(number), self._item(path, value))

    def _values(self, path: Path, skipped: int) -> Iterator[tuple[object, object]]:
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

    def _pairs(self, batch: pa.RecordBatch) -> Iterator[tuple[object, object]]:
        values = batch.column(str(self._column)).to_pylist()
        names = batch.column(self._id_column).to_pylist() if self._id_column else [None] * len(values)
        return zip(names, values, strict=True)

    def _item(self, path: Path, value: object) -> str | Path | bytes:
        if self._kind == "image" and isinstance(value, str):
            return path.parent / value
        return cast("str | bytes", value)  # or a null, which the encoder reports as an item of its own

    def _fitting(self, path: Path, schema: pa.Schema) -> str:
        wanted = "texts" if self._kind == "text" else "image paths or bytes"
        fitting = [field.name for field in schema if field.name != self._id_column and _fits(field.type, self._kind)]
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


def _fits(kind: pa.DataType, modality: Modality) -> bool:
    from pyarrow import types

    if types.is_dictionary(kind):
        return _fits(kind.value_type, modality)
    is_text = types.is_string(kind) or types.is_large_string(kind)
    return is_text or (modality == "image" and (types.is_binary(kind) or types.is_large_binary(kind)))
