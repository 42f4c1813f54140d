"""A table of vectors with their ids and space, as Parquet: one file, or one part of a bulk embedding."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from mmalign_runtime.errors import InputError
from mmalign_runtime.parquet import check_column, open_parquet, write_table

if TYPE_CHECKING:
    import pyarrow.parquet as pq

VECTOR_COLUMNS = ("id", "vector", "space_id")


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
    write_table(file, table.replace_schema_metadata(dict(metadata)))


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
