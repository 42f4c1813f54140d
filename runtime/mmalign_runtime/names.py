"""Names of files and ids as text that every table, JSON and terminal can hold: what they cannot is escaped."""

from __future__ import annotations

import re
from pathlib import Path

# A byte of a file name that is not UTF-8 reaches Python as one of U+DC80 to U+DCFF (PEP 383).
_SURROGATE = re.compile("[\ud800-\udfff]")
_FIRST_BYTE, _LAST_BYTE = 0xDC80, 0xDCFF
# What would move the cursor, colour the terminal, break the line, or turn the direction of what follows.
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069]")


def as_text(name: str | Path) -> str:
    """Return a name as Unicode text: a byte that is not UTF-8 becomes `\\xe9`, another lone surrogate `\\ud83d`."""
    return _SURROGATE.sub(_escaped_surrogate, str(name))


def printable(text: str) -> str:
    """Return text as one line that a terminal shows as it is: `as_text`, with its control characters escaped."""
    return _CONTROL.sub(lambda found: found[0].encode("unicode_escape").decode(), as_text(text))


def is_utf8(text: str) -> bool:
    """Say whether text can be written as UTF-8: it holds no lone surrogate."""
    return _SURROGATE.search(text) is None


def _escaped_surrogate(found: re.Match[str]) -> str:
    code = ord(found[0])
    return f"\\x{code - 0xDC00:02x}" if _FIRST_BYTE <= code <= _LAST_BYTE else f"\\u{code:04x}"
