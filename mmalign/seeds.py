"""Seeds drawn from numbers: what is random about an item depends on its place alone, never on what ran before it.

So workers, a resumed run and an uninterrupted one see the same.
"""

from __future__ import annotations

import enum
import hashlib


class Stream(enum.IntEnum):
    """The independent uses of one step's seed."""

    VIEW = 1
    AUGMENT = 2
    CAPTION = 3
    DROPOUT = 4
    SECOND_VIEW = 5
    HARD = 6
    IMAGE_DROPOUT = 7
    TEXT_DROPOUT = 8
    VIEW_DROPOUT = 9
    SHARDS = 10


def seed_of(*numbers: int) -> int:
    """Return one seed, 0..2^32-1, for several numbers: the same on every machine and in every run."""
    raw = ",".join(str(int(number)) for number in numbers).encode()
    return int.from_bytes(hashlib.blake2b(raw, digest_size=4).digest(), "big")
