"""sentencepiece's table of characters: the longest sequence that it knows is replaced, from the left to the right.

tokenizer.json holds the table in a `Precompiled` normalizer: uint32 size in bytes, a double-array trie over UTF-8 (the
units of darts-clone), and the replacements, each closed by a zero byte. `tokenizers` looks whole graphemes up in it, so
that combining marks are lost or not composed; this module does what sentencepiece does. A table comes from outside, so
that all of it that a text can reach is checked when it is read.
"""

from __future__ import annotations

import re

import numpy as np
from numpy.typing import NDArray

from mmalign_runtime.errors import BundleFormatError

_SIZE_BYTES = 4
_ROOT = 0
# A unit: bits 0 to 7 its label, 8 whether its first child is a value, 9 and above where its children are; bit 31 is set
# in a value, which is the rest of its bits.
_IS_VALUE, _HAS_VALUE, _WIDE = 1 << 31, 1 << 8, 1 << 9
_LABEL = _IS_VALUE | 0xFF
_CHILDREN = 256
# sentencepiece's own four tables have up to 46,600 units, keys of up to 12 bytes, replacements of up to 33.
_MOST_UNITS = 1 << 20
_MOST_KEY_BYTES = 128
_MOST_REPLACEMENT_BYTES = 256
_PRINTABLE = range(0x20, 0x7F)


class Charsmap:
    """A table that has been checked. Nothing changes after construction."""

    def __init__(self, raw: bytes) -> None:
        """Read the bytes of a `precompiled_charsmap`. Raises BundleFormatError where they are cut, lead out of
        themselves or in a circle, or replace characters by more than a few hundred bytes.
        """
        size = int.from_bytes(raw[:_SIZE_BYTES], "little")
        if len(raw) <= _SIZE_BYTES or size % 4 or not _CHILDREN * 4 <= size < len(raw) - _SIZE_BYTES:
            raise _damaged(f"it has {len(raw)} bytes and says that {size} of them are its trie")
        if size > 4 * _MOST_UNITS:
            raise _damaged(f"its trie has {size // 4} units, at most {_MOST_UNITS} are read")
        units = np.frombuffer(raw, "<u4", size // 4, _SIZE_BYTES)
        self._replacements = raw[_SIZE_BYTES + size :]
        _check_replacements(self._replacements, _values(units))
        self._units: list[int] = units.tolist()
        kept = (chr(code) for code in _PRINTABLE if not self._may_begin(code))
        self._unchanged = re.compile(f"[{re.escape(''.join(kept))}]*")

    def replace(self, text: str) -> str:
        """Return the text with every longest sequence that the table knows replaced, and all other characters kept."""
        if self._unchanged.fullmatch(text):
            return text
        data = text.encode()
        parts, kept, at = [], 0, 0
        while at < len(data):
            end, value = self._longest(data, at)
            if end == at:
                at = _next_character(data, at)
                continue
            parts += [data[kept:at], self._replacements[value : self._replacements.index(0, value)]]
            kept = at = end
        return b"".join([*parts, data[kept:]]).decode()

    def _longest(self, data: bytes, start: int) -> tuple[int, int]:
        """Return where the longest key that begins at `start` ends, and its value; `start` where there is none."""
        units, end, value = self._units, start, 0
        node = _first_child(units[_ROOT], _ROOT)
        for at in range(start, len(data)):
            node ^= data[at]
            unit = units[node]
            if unit & _LABEL != data[at]:
                break
            node = _first_child(unit, node)
            if unit & _HAS_VALUE and _begins_character(data, at + 1):
                end, value = at + 1, units[node] & ~_IS_VALUE
        return end, value

    def _may_begin(self, code: int) -> bool:
        """Say whether a key is this ASCII character, or begins with it and another one."""
        node = _first_child(self._units[_ROOT], _ROOT) ^ code
        unit = self._units[node]
        if unit & _LABEL != code:
            return False
        children = _first_child(unit, node)
        return bool(unit & _HAS_VALUE) or any(self._units[children ^ each] & _LABEL == each for each in range(0x80))


def _first_child(unit: int, node: int) -> int:
    return node ^ ((unit >> 10) << (8 if unit & _WIDE else 0))


def _begins_character(data: bytes, at: int) -> bool:
    return at == len(data) or data[at] & 0xC0 != 0x80


def _next_character(data: bytes, at: int) -> int:
    at += 1
    while not _begins_character(data, at):
        at += 1
    return at


def _values(units: NDArray[np.uint32]) -> NDArray[np.int64]:
    """Return all values that a text can reach. Raises BundleFormatError for a trie without an end, or out of itself.

    A unit is the child of each node whose children begin at its own place less its label. Nodes are visited by the
    length of their keys; keys that end alike may share them, so that a node is visited more than once, and a circle
    shows as a key of any length.
    """
    places = np.arange(len(units))
    children = places ^ ((units >> 10).astype(np.int64) << np.where(units & _WIDE, 8, 0))
    labelled = np.flatnonzero(units & _IS_VALUE == 0)
    begins = labelled ^ (units[labelled] & 0xFF)
    found, nodes = [], np.array([_ROOT])
    for _ in range(_MOST_KEY_BYTES):
        first = children[nodes]
        if (first | (_CHILDREN - 1)).max() >= len(units):
            raise _damaged(f"a unit of its trie leads to {first.max()}, and it has {len(units)}")
        found.append(units[first[units[nodes] & _HAS_VALUE > 0]] & ~np.uint32(_IS_VALUE))
        nodes = labelled[np.isin(begins, first)]
        if not len(nodes):
            return np.unique(np.concatenate(found)).astype(np.int64)
    raise _damaged(f"its trie goes in a circle, or has keys of more than {_MOST_KEY_BYTES} bytes")


def _check_replacements(replacements: bytes, values: NDArray[np.int64]) -> None:
    """Raise BundleFormatError unless each value is where a short text begins that a zero byte closes."""
    if len(values) and values.max() >= len(replacements):
        raise _damaged(f"a replacement begins at byte {values.max()} of {len(replacements)}")
    if replacements[-1]:
        raise _damaged("no zero byte closes its last replacement")
    try:
        replacements.decode()
    except UnicodeDecodeError as error:
        raise _damaged(f"its replacements are not UTF-8 at byte {error.start}") from error
    data = np.frombuffer(replacements, np.uint8)
    if inside := np.flatnonzero(data[values] & 0xC0 == 0x80).tolist():
        raise _damaged(f"a replacement begins inside a character, at byte {values[inside[0]]}")
    ends = np.flatnonzero(data == 0)
    longest = int((ends[np.searchsorted(ends, values)] - values).max(initial=0))
    if longest > _MOST_REPLACEMENT_BYTES:
        raise _damaged(f"a replacement has {longest} bytes, at most {_MOST_REPLACEMENT_BYTES} are read")


def _damaged(seen: str) -> BundleFormatError:
    return BundleFormatError(
        f"the precompiled_charsmap, sentencepiece's table of characters, cannot be read: {seen}. Export the bundle "
        "again, from a tokenizer that the library itself reads."
    )
