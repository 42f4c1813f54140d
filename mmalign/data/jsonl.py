"""Rows of JSON Lines files: one object a line, its keys the columns. Blank lines are not rows."""

import itertools
import json
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import msgspec

from mmalign.data.cells import Cells
from mmalign.data.columns import Record, cells_of, check_first_records
from mmalign.data.errors import SourceFormatError
from mmalign.data.pair import Origin, RejectedRow
from mmalign.data.source import DataSource
from mmalign.data.text import describe, text_lines

_KEY_END = re.compile(rb'"\s*:')
_NOT_JSON = re.compile(rb"[:\[,]\s*(-?Infinity|NaN|None|True|False)\b")


def read_jsonl(path: Path, source: DataSource) -> Iterator[Cells | RejectedRow]:
    """Yield the rows of a JSON Lines file. Raises `ColumnError`, `SourceFormatError`."""
    for record in check_first_records(source, path, _records(path)):
        yield record if isinstance(record, RejectedRow) else cells_of(source, record)


def _records(path: Path) -> Iterator[Record | RejectedRow]:
    lines = ((number, line) for number, line in enumerate(text_lines(path), start=1) if not line.isspace())
    first = next(lines, None)
    if first is None:
        return
    _check_shape(path, *first)
    for number, line in itertools.chain([first], lines):
        yield parse_object(Origin(path, line=number), line.encode("utf-8", "surrogateescape"))


def _check_shape(path: Path, number: int, line: str) -> None:
    """Raise for one JSON value that goes over the whole file: each of its lines alone is a fragment."""
    text = line.strip()
    if text == "[" or re.match(r"\[\s*\{", text):
        seen, command = "an array begins", f"jq -c '.[]' {path.name} > rows.jsonl"
    elif text == "{":
        seen, command = "an object begins that goes over several lines", f"jq -c . {path.name} > rows.jsonl"
    else:
        return
    raise SourceFormatError(f"{path}, line {number}: {seen}; expected one object a line. Write it anew: {command}")


def parse_object(origin: Origin, text: bytes) -> Record | RejectedRow:
    """Parse one JSON object; anything else, and a key that is there twice, is a rejected row."""
    try:
        values = msgspec.json.decode(text, type=dict[str, object])
    except UnicodeDecodeError as error:
        return RejectedRow(origin, f"bad JSON: {describe(error)}; expected one object in UTF-8")
    except RecursionError:
        return RejectedRow(origin, "bad JSON: nested too deep; expected one object")
    except msgspec.DecodeError as error:
        found = _NOT_JSON.search(text)
        hint = f". {found[1].decode()} is not JSON: write null, true, false or a number" if found else ""
        return RejectedRow(origin, f"bad JSON ({error}); expected one object{hint}")
    repeated = _repeated_key(text, values)
    if repeated is not None:
        return RejectedRow(origin, f"the key {repeated!r} occurs more than once; expected each key once")
    return Record(origin, values)


def _repeated_key(text: bytes, values: dict[str, object]) -> str | None:
    """Return a key of the object that it has twice, of which the parser keeps the last alone."""
    if len(_KEY_END.findall(text)) <= len(values):  # the fast way out: no more keys than values
        return None
    pairs: list[tuple[str, object]] = json.loads(text, object_pairs_hook=_Pairs)
    counts = Counter(key for key, _ in pairs)
    return next((key for key, count in counts.items() if count > 1), None)


class _Pairs(list[tuple[str, object]]):
    """The keys and values of an object as they are written, repeated ones too."""
