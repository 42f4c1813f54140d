"""Rows of CSV and TSV files. Cells are single texts: a CSV cell that looks like a list is one caption."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path

from mmalign.data.cells import Cells
from mmalign.data.columns import Record, cells_of, check_columns, wanted_columns
from mmalign.data.errors import SourceFormatError
from mmalign.data.header import explain_header
from mmalign.data.image_names import UTF16_UNMARKED, has_image_suffix, has_same_shape, is_url
from mmalign.data.pair import Origin, RejectedRow
from mmalign.data.quoted import QUOTE, SHOWN_CHARACTERS, Row, RowReader, split_row
from mmalign.data.source import DataSource
from mmalign.data.text import LINE_END, text_lines, undecodable


def read_csv(path: Path, source: DataSource) -> Iterator[Cells | RejectedRow]:
    """Yield the rows of a comma-separated file. Raises `ColumnError`, `SourceFormatError`."""
    return _read(path, source, ",")


def read_tsv(path: Path, source: DataSource) -> Iterator[Cells | RejectedRow]:
    """Yield the rows of a tab-separated file, quoted as in CSV. Raises `ColumnError`, `SourceFormatError`."""
    return _read(path, source, "\t")


def _read(path: Path, source: DataSource, usual_delimiter: str) -> Iterator[Cells | RejectedRow]:
    delimiter = source.delimiter or usual_delimiter
    reader = RowReader(path, _checked_lines(path), delimiter, is_quoted=source.quoting == "standard")
    names = _names(path, source, reader, delimiter)
    if not names:
        return
    check_columns(path, names, wanted_columns(source))
    doubt = partial(_doubt, names, names.index(source.image_column), delimiter)
    is_listed = not isinstance(source.header, bool)
    while (row := reader.next_row(doubt)) is not None:
        if isinstance(row, RejectedRow):
            yield row
        elif is_listed and [cell.strip() for cell in row.cells] == names:
            raise SourceFormatError(
                f"{path}, line {row.line} is a header row, and header lists its names too; expected rows. Remove header"
            )
        elif (wrong := _wrong(source, names, delimiter, row)) is None:
            yield cells_of(source, Record(Origin(path, line=row.line), dict(zip(names, row.cells, strict=True))))
        else:
            yield from _rejected_lines(path, row, wrong)


def _checked_lines(path: Path) -> Iterator[str]:
    for number, line in enumerate(text_lines(path), start=1):
        if (wrong := undecodable(line)) is not None:
            advice = "save it as UTF-8; for a file in Windows-1252, iconv -f WINDOWS-1252 -t UTF-8 does"
            raise SourceFormatError(f"{path}, line {number} is {wrong}; {advice}")
        yield line


def _names(path: Path, source: DataSource, reader: RowReader, delimiter: str) -> list[str]:
    """Return the column names, or none for a file without a row. They are stripped: `a, b` has the column `b`."""
    if not isinstance(source.header, bool):
        return list(source.header)
    row = reader.next_row(lambda _: None)
    if row is None:
        return []
    if isinstance(row, RejectedRow):
        raise SourceFormatError(f"{row.origin}: {row.reason}; expected a row of column names")
    names = [name.strip() for name in row.cells]
    explain_header(path, source, names, row, delimiter)
    return names


def _wrong(source: DataSource, names: list[str], delimiter: str, row: Row) -> str | None:
    if "\0" in "".join(row.lines):
        return f"NUL characters; expected text. {UTF16_UNMARKED}"
    if len(row.cells) != len(names):
        return _wrong_count(names, delimiter, row)
    if len(row.lines) > 1 and LINE_END.search(row.cells[names.index(source.image_column)].strip()):
        return "the image cell has several lines; expected one path"
    return None


def _rejected_lines(path: Path, row: Row, wrong: str) -> Iterator[RejectedRow]:
    """Count what is lost by lines: those of a row that is wrong are not read as rows again."""
    yield RejectedRow(Origin(path, line=row.line), wrong)
    for line in range(row.line + 1, row.line + len(row.lines)):
        yield RejectedRow(Origin(path, line=line), f"part of the row that begins in line {row.line}")


def _wrong_count(names: list[str], delimiter: str, row: Row) -> str:
    seen = f"{len(row.cells)} cells; expected {len(names)} as in the header. "
    if any(cell.startswith(" ") and cell.lstrip().startswith(QUOTE) for cell in row.cells):
        return f"{seen}A quote counts only right behind {delimiter!r}: remove the space before it"
    return f"{seen}Put a cell that holds {delimiter!r} in quotes"


def _doubt(names: list[str], image_at: int, delimiter: str, row: Row) -> str | None:
    """Say why a row of several lines is rather one stray quote and the rows that it swallowed, or return None."""
    own = row.cells[image_at] if image_at < len(row.cells) else ""
    like_rows = [
        (row.line + at, line.strip())
        for at, line in enumerate(row.lines[1:], start=1)
        if _is_like_row(split_row(line, delimiter), own, names, image_at)
    ]
    if not like_rows:
        return None
    first, text = like_rows[0]
    return (
        f"a quote opens here and is closed in line {row.line + len(row.lines) - 1}: of the {len(row.lines) - 1} lines "
        f"that it takes, {len(like_rows)} look like rows, such as line {first} ({text[:SHOWN_CHARACTERS]!r}); expected "
        "the text of one cell"
    )


def _is_like_row(cells: list[str], own: str, names: list[str], image_at: int) -> bool:
    if len(cells) < 2:
        return False
    if len(cells) != len(names):
        return any(map(has_image_suffix, cells))
    image = cells[image_at]
    return has_image_suffix(image) or (is_url(own) and is_url(image)) or has_same_shape(own, image)
