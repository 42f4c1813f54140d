"""A sentencepiece table written by hand: a double array with a block of 256 units for the children of each node."""

from __future__ import annotations

import numpy as np

BLOCK, VALUE, HAS_VALUE = 256, 1 << 31, 1 << 8


def charsmap(replaced: dict[str, str]) -> bytes:
    """Return the bytes of a precompiled_charsmap."""
    texts = b"".join(text.encode() + b"\0" for text in replaced.values())
    begins = np.cumsum([0, *(len(text.encode()) + 1 for text in replaced.values())])
    blocks: dict[bytes, int] = {b"": 1}
    for key in replaced:
        for end in range(1, len(key.encode()) + 1):
            blocks.setdefault(key.encode()[:end], len(blocks) + 1)
    units = np.zeros(BLOCK * (len(blocks) + 1), np.uint32)
    units[1:] = VALUE  # no text reaches these
    for prefix, block in blocks.items():
        place = BLOCK * blocks[prefix[:-1]] + prefix[-1] if prefix else 0
        units[place] = (place ^ BLOCK * block) << 10 | (prefix[-1] if prefix else 0)
    for key, begin in zip(replaced, begins, strict=False):
        prefix = key.encode()
        units[BLOCK * blocks[prefix[:-1]] + prefix[-1]] |= HAS_VALUE
        units[BLOCK * blocks[prefix]] = VALUE | int(begin)
    return joined(units, texts)


def joined(units: np.ndarray, texts: bytes) -> bytes:
    """Return units and replacements as one table."""
    return (4 * len(units)).to_bytes(4, "little") + units.astype("<u4").tobytes() + texts


def parted(table: bytes) -> tuple[np.ndarray, bytes]:
    """Return a table's units, to be changed, and its replacements."""
    size = int.from_bytes(table[:4], "little")
    return np.frombuffer(table, "<u4", size // 4, 4).copy(), table[4 + size :]
