"""The tables that embedding writes, as Parquet: vectors with their ids and space, and the items that failed, with why.

Two tables, since a null in a column of fixed-size lists cannot be read back by pyarrow before 26 (measured with 18.1,
22, 23 and 25), and whatever else stood in its place would be found by a search.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING

import msgspec
import numpy as np
from numpy.typing import NDArray

from mmalign_runtime.errors import InputError
from mmalign_runtime.parquet import check_column, open_parquet, reading

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq

VECTOR_COLUMNS = ("id", "vector", "space_id")


class Failure(msgspec.Struct, frozen=True):
    """One item that was not embedded: its number in the input from 0, its id, the stage that refused it, and why."""

    row: int
    id: str
    stage: str
    reason: str


def write_vectors(
    file: Path | IO[bytes], ids: Sequence[str], vectors: NDArray[np.float32], metadata: Mapping[str, str]
) -> None:
    """Write N ids and vectors (N, D) as one table; `metadata` has at least the `space_id`, which is a column too."""
    import pyarrow as pa

    flat = pa.array(vectors.reshape(-1), pa.float32())  # (N * D,)
    columns = [
        pa.array(ids, pa.string()),
        pa.FixedSizeListArray.from_arrays(flat, vectors.shape[1]),
        pa.array([metadata["space_id"]] * len(ids), pa.string()),
    ]
    table = pa.Table.from_arrays(columns, names=list(VECTOR_COLUMNS))
    _write(file, table.replace_schema_metadata(dict(metadata)))


def write_failures(file: Path, failures: Sequence[Failure]) -> None:
    """Write the failures as a table with a column for each of their fields."""
    import pyarrow as pa

    fields: dict[str, pa.DataType] = {name: pa.string() for name in ("row", "id", "stage", "reason")}
    schema = pa.schema(fields | {"row": pa.int64()})
    _write(file, pa.Table.from_pylist([msgspec.structs.asdict(failure) for failure in failures], schema))


def read_failures(path: Path) -> list[Failure]:
    """Read what `write_failures` wrote. Raises InputError when it is damaged."""
    file = open_parquet(path)
    with reading(path):
        return msgspec.convert(file.read().to_pylist(), list[Failure])


def metadata_of(path: Path) -> dict[str, str]:
    """Return the metadata of a Parquet file. Raises InputError when it is damaged."""
    file = open_parquet(path)
    with reading(path):
        found: Mapping[bytes, bytes] = file.schema_arrow.metadata or {}
        return {key.decode(): value.decode() for key, value in found.items() if key != b"ARROW:schema"}


def concatenate(paths: Sequence[Path], target: Path, metadata: Mapping[str, str]) -> None:
    """Write the row groups of several files of one schema into one, with one group in memory at a time.

    Raises InputError naming the file that is damaged.
    """
    import pyarrow.parquet as pq

    schema = open_parquet(paths[0]).schema_arrow.with_metadata(dict(metadata))
    with pq.ParquetWriter(target, schema, write_page_checksum=True) as writer:
        for path in paths:
            for group in row_groups(path):
                writer.write_table(group.replace_schema_metadata(schema.metadata))


def row_groups(path: Path, columns: Sequence[str] | None = None) -> Iterator[pa.Table]:
    """Read a file group by group, its pages checked. Raises InputError when it is damaged."""
    file = open_parquet(path, check_pages=True)
    for group in range(file.metadata.num_row_groups):
        with reading(path):
            table = file.read_row_group(group, columns=list(columns) if columns else None)
        yield table


def open_vectors(path: Path) -> pq.ParquetFile:
    """Open a table of vectors. Raises InputError when a column is missing or of another type."""
    import pyarrow as pa

    file = open_parquet(path)
    for name in VECTOR_COLUMNS:
        check_column(file, name, path)
    kind = file.schema_arrow.field("vector").type
    if not pa.types.is_fixed_size_list(kind) or kind.value_type != pa.float32():
        raise InputError(f"{path}: column 'vector' is {kind}, expected fixed_size_list<float>[D] without nulls.")
    return file


def vector_length(file: pq.ParquetFile) -> int:
    """Return D of a table that `open_vectors` opened."""
    size: int = file.schema_arrow.field("vector").type.list_size
    return size


def _write(file: Path | IO[bytes], table: pa.Table) -> None:
    import pyarrow.parquet as pq

    pq.write_table(table, file, write_page_checksum=True)
