"""Text as files bring it: UTF-8, or UTF-16 and UTF-32 where a byte-order mark says so.

Another encoding is never guessed: a wrong guess makes texts that nobody wrote.
"""

import codecs
import re
from collections.abc import Iterator
from pathlib import Path

from mmalign.data.errors import SourceFormatError

# UTF-32 first: its mark begins with that of UTF-16.
_MARKS: tuple[tuple[bytes, str], ...] = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_MARK_BYTES = 4
_LEGACY = "cp1252"  # what tables that are not UTF-8 are most often in
_ESCAPED = re.compile("[\udc80-\udcff]")  # what "surrogateescape" makes of bytes that are not UTF-8

# What editors take for the end of a line; str.splitlines also ends one at U+2028 or a form feed.
LINE_END = re.compile(r"\r\n|\r|\n")
_FIRST_END = re.compile(r"\r*\n|\r")
_HEAD_BYTES = 1 << 16


def text_lines(path: Path) -> Iterator[str]:
    """Yield the lines of a file with their ends, all of the kind of the first: the other kind belongs to the text.

    Bytes that are not UTF-8 come as lone surrogates, for `undecodable` to find. Raises `SourceFormatError` for a
    file that is not in the encoding that its mark names.
    """
    with path.open("rb") as file:
        head = file.read(_HEAD_BYTES)
    encoding = _encoding_of(head)
    end = _FIRST_END.search(head.decode(encoding, errors="replace"))
    newline = "\r" if end is not None and end[0] == "\r" else "\n"
    number = 0
    try:
        with path.open(encoding=encoding, errors="surrogateescape", newline=newline) as file:
            for line in file:
                yield line
                number += 1
    except UnicodeDecodeError as error:
        raise SourceFormatError(
            f"{path}, after line {number}: its byte-order mark says {encoding.upper()}, but {error}; save it as UTF-8"
        ) from error


def undecodable(line: str) -> str | None:
    """Say what in a line of `text_lines` is not UTF-8, or return None."""
    if line.isascii() or _ESCAPED.search(line) is None:
        return None
    try:
        line.encode("utf-8", "surrogateescape").decode()
    except UnicodeDecodeError as error:
        return describe(error)
    return None


def to_utf8(content: bytes) -> bytes:
    """Return a file's content without its byte-order mark, in UTF-8 where the mark says UTF-16 or UTF-32.

    Without a mark it is returned as it is. Raises `UnicodeDecodeError` where the mark is wrong.
    """
    encoding = _encoding_of(content[:_MARK_BYTES])
    return content.removeprefix(codecs.BOM_UTF8) if encoding.startswith("utf-8") else content.decode(encoding).encode()


def describe(error: UnicodeDecodeError) -> str:
    """Say which byte is not UTF-8, and what it is in the encoding that such files mostly have."""
    byte = error.object[error.start : error.start + 1]
    character = byte.decode(_LEGACY, errors="ignore")
    hint = f"; byte {byte[0]:#04x} is {character!r} in Windows-1252" if byte and character else ""
    return f"not UTF-8 ({error}{hint})"


def _encoding_of(head: bytes) -> str:
    return next((encoding for mark, encoding in _MARKS if head.startswith(mark)), "utf-8")
