"""What reading gives: a pair, or a row that could not become one.

Pixels are not decoded here: a pair holds the path of its image or the encoded bytes.
"""

from pathlib import Path

import msgspec


class Origin(msgspec.Struct, frozen=True):
    """The place a pair was read from, exact enough to open and look.

    `line` counts from 1, as editors do; `row` counts from 0, as pyarrow and pandas do; `member` is the key of
    a sample in a shard, or names an entry of a JSON file.
    """

    source_path: Path
    line: int | None = None
    row: int | None = None
    member: str | None = None

    def __str__(self) -> str:
        """Return the place as an error names it, such as `pairs.csv, line 3`."""
        places = (("line", self.line), ("row", self.row), ("member", self.member))
        return ", ".join([str(self.source_path), *(f"{name} {at}" for name, at in places if at is not None)])


class Pair(msgspec.Struct, frozen=True):
    """One image with the texts that describe it.

    `image` is a path or the encoded bytes; `captions` has one or more texts, stripped and not empty. Pairs of
    one `concept` show the same thing: they are never split apart, and are not negatives of each other. `group`
    is the class name for zero-shot evaluation. Readers set `image_id`, the same for the same image: see
    `mmalign.data.identity`. `languages` are the captions again, each behind the name of its language, where the source
    names languages; a text that two of them share is there twice.
    """

    image: Path | bytes
    captions: tuple[str, ...]
    concept: str
    origin: Origin
    group: str | None = None
    image_id: str = ""
    languages: tuple[tuple[str, str], ...] = ()


class RejectedRow(msgspec.Struct, frozen=True):
    """A row that could not become a pair, and why: what was seen and what was expected."""

    origin: Origin
    reason: str


class PairSet(msgspec.Struct, frozen=True):
    """All of a source: its pairs in reading order, and the rows that were skipped on request."""

    pairs: tuple[Pair, ...]
    rejected: tuple[RejectedRow, ...] = ()
