"""What is wrong with a first row that does not name the wanted columns, and the setting that mends it."""

import json
from pathlib import Path

from mmalign.data.columns import wanted_columns
from mmalign.data.errors import ColumnError, SourceFormatError
from mmalign.data.image_names import looks_like_image
from mmalign.data.quoted import Row, split_row
from mmalign.data.source import DataSource

_DELIMITERS = ("\t", "|", ";", ",")


def explain_header(path: Path, source: DataSource, names: list[str], row: Row, delimiter: str) -> None:
    """Raise `SourceFormatError` or `ColumnError` if this is not a header row, or one with another delimiter."""
    line = row.lines[0]
    if "\0" in line:
        raise SourceFormatError(
            f"{path}, line {row.line} holds NUL characters; expected a row of column names. "
            "The file may be UTF-16 without a byte-order mark: save it as UTF-8"
        )
    if line.startswith("sep="):
        raise SourceFormatError(
            f"{path}, line {row.line} is {line.strip()!r}, which Excel alone reads; expected a row of column names. "
            f"Remove it and set delimiter = {json.dumps(line.removeprefix('sep=')[:1])}"
        )
    if all(name in names for name in wanted_columns(source)):
        return
    other = _better_delimiter(line, delimiter)
    if other is not None:
        shown = ", ".join(repr(name.strip()) for name in split_row(line, other))
        raise ColumnError(
            f"{path}, line {row.line} has one cell when split at {delimiter!r}, but {shown} when split at "
            f"{other!r}. Set delimiter = {json.dumps(other)}"
        )
    if any(map(looks_like_image, names)):
        proposed = json.dumps(_proposed(source, names), ensure_ascii=False)
        raise ColumnError(
            f"{path}, line {row.line} looks like a pair and not like column names: {', '.join(map(repr, names))}; "
            f"expected a header row. If the file has none, set header = {proposed}"
        )


def _better_delimiter(line: str, delimiter: str) -> str | None:
    if len(split_row(line, delimiter)) > 1:
        return None
    best = max(_DELIMITERS, key=lambda other: len(split_row(line, other)))
    return best if len(split_row(line, best)) > 1 else None


def _proposed(source: DataSource, names: list[str]) -> list[str]:
    """Name the cell that looks like an image and, in their order, the others."""
    image_at = next(at for at, name in enumerate(names) if looks_like_image(name))
    others = [name for name in wanted_columns(source) if name != source.image_column]
    others += [f"column_{at}" for at in range(len(others) + 1, len(names))]
    return [*others[:image_at], source.image_column, *others[image_at : len(names) - 1]]
