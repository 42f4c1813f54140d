"""Rows out of the lines of a delimited file, quoted as RFC 4180 has it or not at all.

The `csv` module finds where a row ends by its quotes alone, so that one stray quote takes every line up to the next
one into a cell. Here a row that goes over several lines has to convince: if it is malformed, or its lines look like
rows themselves, its first line alone is rejected and reading goes on at the second.
"""

import re
from collections import deque
from collections.abc import Callable, Iterable
from pathlib import Path

import msgspec

from mmalign.data.pair import Origin, RejectedRow

QUOTE = '"'
MAX_ROW_LINES = 1000  # no caption is longer; it bounds what is read ahead for a quote that is never closed
SHOWN_CHARACTERS = 40

_QUOTED = re.compile(r'"((?:[^"]++|"")*+)"')
_ADVICE = (
    'Set quoting = "none" if quotes are ordinary characters in this file; otherwise put the cell in quotes and write '
    "each quote inside it twice"
)


class Row(msgspec.Struct, frozen=True):
    """The cells of a row, and the physical lines that they were read from; `line` is the number of the first."""

    line: int
    cells: list[str]
    lines: list[str]


class _OpenQuoteError(Exception):
    """The last cell has no closing quote yet."""


class _StrayQuoteError(Exception):
    """Text stands behind a closing quote."""


class RowReader:
    """The rows of one file, in order."""

    def __init__(self, path: Path, lines: Iterable[str], delimiter: str, *, is_quoted: bool) -> None:
        self._path = path
        self._lines = iter(lines)
        self._ahead: deque[str] = deque()
        self._delimiter = delimiter
        self._is_quoted = is_quoted
        self._number = 0  # of the last line taken

    def next_row(self, doubt: Callable[[Row], str | None]) -> Row | RejectedRow | None:
        """Return the next row that is not blank, or None at the end.

        `doubt` is asked about rows of several lines, and says what is wrong with one or returns None.
        """
        first = self._take()
        while first is not None and self._is_blank(first):
            first = self._take()
        if first is None:
            return None
        if not self._is_quoted or QUOTE not in first:
            return Row(self._number, _without_end(first).split(self._delimiter), [first])
        return self._quoted_row(self._number, [first], doubt)

    def _quoted_row(self, number: int, taken: list[str], doubt: Callable[[Row], str | None]) -> Row | RejectedRow:
        try:
            row = Row(number, self._closed_cells(taken), taken)
            reason = doubt(row) if len(taken) > 1 else None
        except (_OpenQuoteError, _StrayQuoteError) as wrong:
            reason = str(wrong)
        if reason is None:
            return row
        self._give_back(taken[1:])
        return RejectedRow(Origin(self._path, line=number), f"{reason}. {_ADVICE}")

    def _closed_cells(self, taken: list[str]) -> list[str]:
        """Split the lines in `taken`, to which lines are added until every quote is closed."""
        start = self._number
        while True:
            try:
                return split_quoted(_without_end("".join(taken)), self._delimiter)
            except _OpenQuoteError:
                if not self._take_to_quote(taken):
                    where = f"line {self._number}" if len(taken) >= MAX_ROW_LINES else f"the end, line {self._number}"
                    raise _OpenQuoteError(f"a quote opens here that is not closed up to {where}") from None
            except _StrayQuoteError as stray:
                last = start + len(taken) - 1
                seen = "a quoted cell ends" if last == start else f"a quote opens here and is closed in line {last},"
                expected = f"expected {self._delimiter!r} or the end of the line behind it"
                raise _StrayQuoteError(f"{seen} before {str(stray)!r}; {expected}") from None

    def _take_to_quote(self, taken: list[str]) -> bool:
        while len(taken) < MAX_ROW_LINES and (line := self._take()) is not None:
            taken.append(line)
            if QUOTE in line:
                return True
        return False

    def _is_blank(self, line: str) -> bool:
        return line.isspace() and self._delimiter not in line

    def _take(self) -> str | None:
        line = self._ahead.popleft() if self._ahead else next(self._lines, None)
        self._number += line is not None
        return line

    def _give_back(self, lines: list[str]) -> None:
        self._ahead.extendleft(reversed(lines))
        self._number -= len(lines)


def split_quoted(text: str, delimiter: str) -> list[str]:
    """Split a row into cells. A quote counts at the beginning of a cell only; inside quotes, two stand for one."""
    cells: list[str] = []
    at = 0
    while True:
        if not text.startswith(QUOTE, at):
            end = text.find(delimiter, at)
            if end < 0:
                return [*cells, text[at:]]
            cells.append(text[at:end])
        else:
            quoted = _QUOTED.match(text, at)
            if quoted is None:
                raise _OpenQuoteError
            end = quoted.end()
            cells.append(quoted[1].replace(QUOTE * 2, QUOTE))
            if end == len(text):
                return cells
            if text[end] != delimiter:
                raise _StrayQuoteError(text[end : end + SHOWN_CHARACTERS])
        at = end + 1


def split_row(line: str, delimiter: str) -> list[str]:
    """Split one line alone into cells, with its quotes taken for ordinary characters where they are not in pairs."""
    text = _without_end(line)
    try:
        return split_quoted(text, delimiter)
    except (_OpenQuoteError, _StrayQuoteError):
        return text.split(delimiter)


def _without_end(line: str) -> str:
    return line.rstrip("\r\n")  # also \r\r\n, as files written on Windows in text mode have it
