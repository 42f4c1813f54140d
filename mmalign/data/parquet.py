"""Rows of Parquet files, a few at a time: images may lie in the cells, and a file need not fit in memory."""

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from mmalign.data.cells import Cells
from mmalign.data.columns import Record, cells_of, check_columns, wanted_columns
from mmalign.data.errors import SourceFormatError
from mmalign.data.pair import Origin, RejectedRow
from mmalign.data.source import DataSource

BATCH_ROWS = 64  # with images of 1 MB in the cells, 64 MB are held at once


def read_parquet(path: Path, source: DataSource) -> Iterator[Cells | RejectedRow]:
    """Yield the rows of a Parquet file, of which only the wanted columns are read.

    Raises `ColumnError`, `SourceFormatError`.
    """
    for row, values in enumerate(_rows(path, source)):
        yield cells_of(source, Record(Origin(path, row=row), values))


def _rows(path: Path, source: DataSource) -> Iterator[dict[str, object]]:
    wanted = wanted_columns(source)
    num_read = 0
    try:
        with pq.ParquetFile(path) as file:
            check_columns(path, file.schema_arrow.names, wanted)
            for batch in file.iter_batches(batch_size=BATCH_ROWS, columns=list(wanted)):
                yield from _values(path, batch, num_read)
                num_read += len(batch)
    except (pa.ArrowException, OSError) as error:
        advice = "Expected a whole Parquet file; write or download it again"
        raise SourceFormatError(f"{path} cannot be read as Parquet: {error}. {advice}") from error


def _values(path: Path, batch: pa.RecordBatch, num_before: int) -> list[dict[str, object]]:
    """Return the rows of a batch as Python values. Raises `SourceFormatError` naming the cell that gives none."""
    try:
        return batch.to_pylist()
    except ValueError:  # text that is not UTF-8, or a time that Python has no value for
        for at in range(len(batch)):
            for name in batch.schema.names:
                _check_cell(path, batch, name, at, num_before + at)
        raise


def _check_cell(path: Path, batch: pa.RecordBatch, name: str, at: int, row: int) -> None:
    try:
        batch.column(name)[at].as_py()
    except ValueError as error:
        cell = f"row {row}, column {name!r} ({batch.column(name).type})"
        raise SourceFormatError(
            f"{path} cannot be read as Parquet: {cell}: {str(error).rstrip('.')}. "
            "Expected text in UTF-8, encoded images or whole numbers; write the column as one of these"
        ) from error
