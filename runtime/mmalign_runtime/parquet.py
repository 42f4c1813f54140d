"""Parquet through pyarrow, an optional extra: read and write tables, or say what is missing or damaged."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from difflib import get_close_matches
from pathlib import Path
from typing import IO, TYPE_CHECKING

from mmalign_runtime.errors import InputError, MissingDependencyError

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq

PARQUET_SUFFIX = ".parquet"


def require_pyarrow() -> None:
    """Raise MissingDependencyError naming the extra when pyarrow is not installed."""
    try:
        import pyarrow.parquet  # noqa: F401
    except ImportError as error:
        raise MissingDependencyError(
            "Parquet needs pyarrow, which is not installed. Run `pip install 'mmalign-runtime[parquet]'`."
        ) from error


def open_parquet(path: Path, *, memory_map: bool = False, check_pages: bool = False) -> pq.ParquetFile:
    """Open a Parquet file, reading its footer alone; `check_pages` compares the pages that have a checksum with it.

    Raises MissingDependencyError, and InputError for a damaged file.
    """
    require_pyarrow()
    import pyarrow.parquet as pq

    with reading(path):
        return pq.ParquetFile(path, memory_map=memory_map, page_checksum_verification=check_pages)


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turn what Parquet's reader raises into an InputError that names `path`: damage, or what the system says of it.

    Found by flipping bits: text in the footer that is not UTF-8, and lengths that no memory holds, are no Arrow errors.
    """
    import pyarrow as pa

    try:
        yield
    except (pa.ArrowException, OSError, UnicodeDecodeError, MemoryError) as error:
        if (number := system_error(error)) is not None:
            raise InputError(f"{path} cannot be read: {os.strerror(number)}. Check its permissions.") from error
        reason = f"{path} cannot be read as Parquet ({error}). It is damaged or incomplete: write it again."
        raise InputError(reason) from error


def system_error(error: BaseException | None) -> int | None:
    """Return the number of what the system says, None for damage, of which pyarrow raises an OSError without one."""
    return error.errno if isinstance(error, OSError) else None


def check_column(file: pq.ParquetFile, name: str, path: Path) -> None:
    """Raise InputError, naming the columns there are and the nearest one, unless the file has one column `name`."""
    names = file.schema_arrow.names
    if names.count(name) > 1:
        raise InputError(f"{path} has {names.count(name)} columns {name!r}, expected one. Rename the others.")
    if name not in names:
        nearest = get_close_matches(name, names, n=1)
        hint = f"Did you mean {nearest[0]!r}?" if nearest else "Name one of these."
        raise InputError(f"{path} has no column {name!r}; it has {', '.join(map(repr, names))}. {hint}")


def metadata_of(path: Path) -> dict[str, str]:
    """Return the metadata of a Parquet file. Raises InputError when it is damaged."""
    file = open_parquet(path)
    with reading(path):
        found: Mapping[bytes, bytes] = file.schema_arrow.metadata or {}
        return {key.decode(): value.decode() for key, value in found.items() if key != b"ARROW:schema"}


def row_groups(path: Path, columns: Sequence[str] | None = None) -> Iterator[pa.Table]:
    """Read a file group by group, its pages checked. Raises InputError when it is damaged."""
    file = open_parquet(path, check_pages=True)
    for group in range(file.metadata.num_row_groups):
        with reading(path):
            table = file.read_row_group(group, columns=list(columns) if columns else None)
        yield table


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


def write_table(file: Path | IO[bytes], table: pa.Table) -> None:
    """Write a table, each page with its checksum."""
    import pyarrow.parquet as pq

    pq.write_table(table, file, write_page_checksum=True)
