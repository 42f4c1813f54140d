"""Rows of JSON Lines files: one object a line, its keys the columns. Blank lines are no rows."""

import codecs
from collections.abc import Iterator
from pathlib import Path

import msgspec

from mmalign.data.cells import Cells
from mmalign.data.columns import Record, cells_of, check_first_records
from mmalign.data.pair import Origin, RejectedRow
from mmalign.data.source import DataSource


def read_jsonl(path: Path, source: DataSource) -> Iterator[Cells | RejectedRow]:
    """Yield the rows of a JSON Lines file. Raises `ColumnError`."""
    for record in check_first_records(source, path, _records(path)):
        yield record if isinstance(record, RejectedRow) else cells_of(source, record)


def _records(path: Path) -> Iterator[Record | RejectedRow]:
    with path.open("rb") as file:
        for line, text in enumerate(file, start=1):
            content = text.removeprefix(codecs.BOM_UTF8) if line == 1 else text
            if content.strip():
                yield parse_object(Origin(path, line=line), content)


def parse_object(origin: Origin, text: bytes) -> Record | RejectedRow:
    """Parse one JSON object; anything else is a rejected row."""
    try:
        return Record(origin, msgspec.json.decode(text, type=dict[str, object]))
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        return RejectedRow(origin, f"bad JSON ({error}); expected one object")
