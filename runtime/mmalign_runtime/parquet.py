"""Parquet through pyarrow, which is an optional extra: open a file and find a column, or say what is missing."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING

from mmalign_runtime.errors import InputError, MissingDependencyError

if TYPE_CHECKING:
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
