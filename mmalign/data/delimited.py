"""Rows of CSV and TSV files, with a header row and UTF-8 text.

Cells are single texts: a CSV cell that looks like a list is one caption.
"""

import csv
from collections.abc import Iterator
from pathlib import Path

import msgspec

from mmalign.data.cells import Cells
from mmalign.data.columns import Record, cells_of, check_columns, wanted_columns
from mmalign.data.errors import SourceFormatError
from mmalign.data.pair import Origin, RejectedRow
from mmalign.data.source import DataSource


class _Line(msgspec.Struct, frozen=True):
    """A parsed row and the physical line that it starts on."""

    line: int
    cells: list[str]


def read_csv(path: Path, source: DataSource) -> Iterator[Cells | RejectedRow]:
    """Yield the rows of a comma-separated file. Raises `ColumnError`, `SourceFormatError`."""
    return _read(path, source, ",")


def read_tsv(path: Path, source: DataSource) -> Iterator[Cells | RejectedRow]:
    """Yield the rows of a tab-separated file, quoted as in CSV. Raises `ColumnError`, `SourceFormatError`."""
    return _read(path, source, "\t")


def _read(path: Path, source: DataSource, delimiter: str) -> Iterator[Cells | RejectedRow]:
    lines = _parse(path, delimiter)
    header = next(lines, None)
    if header is None:
        return
    if isinstance(header, RejectedRow):
        raise SourceFormatError(f"{header.origin}: {header.reason}; expected a row of column names")
    check_columns(path, header.cells, wanted_columns(source))
    for line in lines:
        yield line if isinstance(line, RejectedRow) else _row(path, source, header.cells, line)


def _row(path: Path, source: DataSource, names: list[str], line: _Line) -> Cells | RejectedRow:
    origin = Origin(path, line=line.line)
    if len(line.cells) != len(names):
        reason = f"{len(line.cells)} cells; expected {len(names)} as in the header. Quote delimiters"
        return RejectedRow(origin, reason)
    return cells_of(source, Record(origin, dict(zip(names, line.cells, strict=True))))


def _parse(path: Path, delimiter: str) -> Iterator[_Line | RejectedRow]:
    """Parse strictly: a lenient parser takes the rest of the file for one cell if a quote is never closed."""
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.reader(file, delimiter=delimiter, strict=True)
        while True:
            line = reader.line_num + 1
            try:
                cells = next(reader, None)
            except csv.Error as error:
                yield RejectedRow(
                    Origin(path, line=line), f"{error} (in line {reader.line_num}); expected closed quotes"
                )
                continue
            except UnicodeDecodeError as error:
                raise SourceFormatError(f"{path} is not UTF-8 ({error}); save it as UTF-8") from error
            if cells is None:
                return
            if cells:  # a blank line is no row
                yield _Line(line, cells)
