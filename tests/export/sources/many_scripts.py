"""Texts of many scripts, drawn with a seed: words of assigned characters, marks, numbers, entities, mojibake."""

from __future__ import annotations

import random
import unicodedata
from collections.abc import Iterator

# First and last code point of blocks: Latin to Adlam, symbols, emoji, fullwidth and presentation forms.
_BLOCKS = (
    *((0x41, 0x5A), (0x61, 0x7A), (0xC0, 0x24F), (0x300, 0x36F), (0x370, 0x3FF), (0x400, 0x52F), (0x531, 0x587)),
    *((0x5D0, 0x5EA), (0x620, 0x65F), (0x660, 0x669), (0x904, 0x94D), (0x985, 0x9B9), (0xA05, 0xA39), (0xB85, 0xBB9)),
    *((0xC05, 0xC39), (0xE01, 0xE4E), (0x10A0, 0x11FF), (0x1200, 0x137C), (0x13A0, 0x13F5), (0x1780, 0x17DD)),
    *((0x1E00, 0x1FFF), (0x2C00, 0x2CFF), (0x3041, 0x3096), (0x30A1, 0x30FA), (0x4E00, 0x9FFF), (0xAC00, 0xD7A3)),
    *((0xFF01, 0xFF9F), (0xFB00, 0xFB4F), (0x1F300, 0x1FAFF), (0x2600, 0x27BF), (0x2100, 0x218F), (0x80, 0xFF)),
    *((0x10000, 0x10FFF), (0x1D400, 0x1D7FF), (0x20000, 0x20200), (0x1E900, 0x1E95F)),
)
_MARKS = (
    *" ,.;:!?-'\"()[]#&%/\\@_*+=<>~`|$^{}\t\n",
    *("  ", "'s", "'T", "'Re", "'ll", "…", "—", "’s", "“", "”", "\u200d", "\ufe0f", "\u00a0", "\u3000", "\u200b"),
    *("&amp;", "&lt;", "&#39;", "&amp;quot;", "&nbsp", "Ã©", "â€™", "<br>", "https://a.b/c?d=e&f=g", "<|endoftext|>"),
)


def many_scripts(count: int, seed: int = 0) -> list[str]:
    """Return so many texts, the same for one seed."""
    drawn = random.Random(seed)
    return ["".join(_words(drawn)) for _ in range(count)]


def _words(drawn: random.Random) -> Iterator[str]:
    for _ in range(drawn.randint(1, 8)):
        first, last = drawn.choice(_BLOCKS)
        letters = (chr(drawn.randint(first, last)) for _ in range(drawn.randint(1, 9)))
        yield "".join(letter for letter in letters if unicodedata.category(letter) not in ("Cs", "Cn"))
        yield drawn.choice(_MARKS) if drawn.random() < 0.4 else " "
        if drawn.random() < 0.15:
            yield str(drawn.randint(0, 99_999))
