"""Text files as text: which encoding their first bytes announce, and where their lines end.

A line ends at a line feed, with or without a carriage return before it; where a file has no line feed at all, at each
carriage return, as old Macs wrote. Nothing else that Unicode calls a line break parts a row in two.
"""

from __future__ import annotations

import codecs
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mmalign_runtime.errors import InputError

# UTF-32's mark begins as UTF-16's does, so it is looked for first. The codecs of these names take the mark away.
_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_HEAD_BYTES = 4096
# Western text in UTF-16 without a mark has a NUL in two bytes; a text with a stray one has fewer.
_NUL_SHARE = 0.125
_BLOCK_CHARACTERS = 1 << 20


def text_encoding(path: Path) -> str:
    """Return the encoding that a text file's byte order mark announces, UTF-8 where there is none.

    Raises InputError for what has no mark and is full of NULs, as UTF-16 is; OSError when it cannot be read.
    """
    with path.open("rb") as file:
        head = file.read(_HEAD_BYTES)
    for mark, encoding in _MARKS:
        if head.startswith(mark):
            return encoding
    if _looks_wide(head):
        seen = f"{path} is full of NUL bytes, as UTF-16 without a byte order mark is"
        raise InputError(f"{seen}, expected UTF-8. Save it as UTF-8, or with a byte order mark.")
    return "utf-8"


def line_end(path: Path, encoding: str) -> str:
    """Return what ends the lines of a file: a line feed where it has one, else a carriage return where it has one.

    Raises InputError where UTF-16 or UTF-32 is damaged, OSError when the file cannot be read.
    """
    end = "\n"
    with _decoding(path), path.open(encoding=encoding, errors=_errors(encoding), newline="") as file:
        while block := file.read(_BLOCK_CHARACTERS):
            if "\n" in block:
                return "\n"
            end = "\r" if "\r" in block else end
    return end


def lines(path: Path, encoding: str, end: str) -> Iterator[str]:
    """Yield a file's lines without their ends; a byte that is not UTF-8 becomes a lone surrogate (PEP 383).

    Raises as `line_end` does.
    """
    with _decoding(path), path.open(encoding=encoding, errors=_errors(encoding), newline=end) as file:
        for line in file:
            yield line.removesuffix(end).removesuffix("\r")


def whole_text(path: Path) -> str:
    """Return what a text file holds, its line ends as line feeds and the last ones left out.

    Raises as `text_encoding` and `line_end` do.
    """
    encoding = text_encoding(path)
    with _decoding(path):
        return path.read_text(encoding, _errors(encoding)).rstrip("\n")


def not_utf8(text: str) -> str | None:
    """Say which byte of a text that `lines` gave is not UTF-8, and what to do; None where all are."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        byte = ord(text[error.start]) & 0xFF
        fix = "Save the file as UTF-8, for example with `iconv -f WINDOWS-1252 -t UTF-8`."
        return f"the byte {byte:#04x} at character {error.start} is not UTF-8. {fix}"
    return None


@contextmanager
def _decoding(path: Path) -> Iterator[None]:
    try:
        yield
    except UnicodeDecodeError as error:
        seen = f"is not {error.encoding.upper()} ({error.reason}), which its byte order mark announces"
        raise InputError(f"{path} {seen}. It is cut or damaged: save it again.") from error


def _errors(encoding: str) -> str:
    return "surrogateescape" if encoding.startswith("utf-8") else "strict"


def _looks_wide(head: bytes) -> bool:
    if b"\0" not in head:
        return False
    try:
        codecs.getincrementaldecoder("utf-8")().decode(head)  # not final: the head may end inside a character
    except UnicodeDecodeError:
        return True
    return head.count(0) >= _NUL_SHARE * len(head)
