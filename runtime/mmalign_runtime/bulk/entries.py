"""One thing to embed, and what gives them: the border between reading an input and embedding it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

import msgspec


class Entry(msgspec.Struct, frozen=True):
    """One thing to embed: `item` is a text, or an image's path or bytes.

    `problem` says why `item`, the path of a text or a text that is not UTF-8, could not be read: one failure among the
    others, not the end of the input.
    """

    id: str
    item: str | Path | bytes
    problem: str | None = None


class Source(Protocol):
    """A known number of entries, read one after the other, in the same order every time."""

    @property
    def remarks(self) -> tuple[str, ...]:
        """What lies at the source and is not among the entries, in words for a user."""

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[Entry]: ...

    def entries(self, start: int) -> Iterator[Entry]:
        """Yield the entries from number `start` on, without reading those before it."""

    def fingerprint(self) -> str:
        """Return a hash of which entries there are now, and in which order. What their files hold is not in it."""
