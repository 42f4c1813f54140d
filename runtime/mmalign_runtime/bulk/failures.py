"""The items that a bulk embedding could not embed, with why, as a table of their own.

A null among the vectors cannot be read back by pyarrow before 26 (measured with 18.1, 22, 23 and 25), and whatever else
stood in its place would be found by a search.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from mmalign_runtime.parquet import open_parquet, reading, write_table

if TYPE_CHECKING:
    import pyarrow as pa


class Failure(msgspec.Struct, frozen=True):
    """One item that was not embedded: its number in the input from 0, its id, the stage that refused it, and why."""

    row: int
    id: str
    stage: str
    reason: str


def write_failures(file: Path, failures: Sequence[Failure]) -> None:
    """Write the failures as a table with a column for each of their fields."""
    import pyarrow as pa

    fields: dict[str, pa.DataType] = {name: pa.string() for name in ("row", "id", "stage", "reason")}
    schema = pa.schema(fields | {"row": pa.int64()})
    write_table(file, pa.Table.from_pylist([msgspec.structs.asdict(failure) for failure in failures], schema))


def read_failures(path: Path) -> list[Failure]:
    """Read what `write_failures` wrote. Raises InputError when it is damaged."""
    file = open_parquet(path)
    with reading(path):
        return msgspec.convert(file.read().to_pylist(), list[Failure])
