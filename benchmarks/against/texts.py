"""Sets of English texts as services get them: what people type, captions, paragraphs, and a mix of the three.

queries      3 to 8 words: names and keywords of the emoji packs
captions     8 to 20 words: sentences of the Debian FAQ and the Debian Reference
paragraphs   40 words and more, up to the context length and beyond: paragraphs of the same books
mixed        a third of each
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterable, Sequence
from html.parser import HTMLParser
from pathlib import Path

import pyarrow.parquet as pq

from benchmarks.harness.packages import Package, fetch
from benchmarks.harness.places import ROOT

NUM_TEXTS = 32
SEED = 0
QUERY_WORDS = (3, 8)
CAPTION_WORDS = (8, 20)
PARAGRAPH_WORDS = (40, 200)

_PACK = ROOT / "benchmarks/emoji/packs/noto.parquet"
DEBIAN_FAQ = Package("debian", "debian-faq", "11.1", "427426e0cfa6888622fc1d72631071cb4b5a1f86ccde722e7820bcef284de5d0")
DEBIAN_REFERENCE = Package(
    "debian", "debian-reference-en", "2.100", "9f31d3a17df505de09689ca255512ea58c1fc47c59bb1b0c7bf1c23362e9743f"
)
_BOOKS = ((DEBIAN_FAQ, "usr/share/doc/debian/FAQ/"), (DEBIAN_REFERENCE, "usr/share/debian-reference/"))
_SENTENCE_END = re.compile(r"(?<=[.!?])\s+(?=[A-Z])")


def build_text_sets(cache: Path) -> dict[str, tuple[str, ...]]:
    """Return the texts of every set; the same for everyone. Raises SourceError when the packages cannot be had."""
    paragraphs = list(dict.fromkeys(_paragraphs(cache)))
    sentences = [sentence for paragraph in paragraphs for sentence in _SENTENCE_END.split(paragraph)]
    sets = {
        "queries": _draw("queries", _names(), QUERY_WORDS),
        "captions": _draw("captions", [text for text in sentences if text.endswith((".", "!", "?"))], CAPTION_WORDS),
        "paragraphs": _draw("paragraphs", paragraphs, PARAGRAPH_WORDS),
    }
    kinds = list(sets.values())
    return sets | {"mixed": tuple(kinds[number % len(kinds)][number] for number in range(NUM_TEXTS))}


def has_words(text: str, bounds: tuple[int, int]) -> bool:
    """Return whether a text has at least and at most so many words."""
    return bounds[0] <= len(text.split()) <= bounds[1]


class Paragraphs(HTMLParser):
    """Collects the text of every <p> in `found`, white space folded."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []
        self._parts: list[str] | None = None

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Begin a paragraph; one that is open ends."""
        if tag == "p":
            self._finish()
            self._parts = []

    def handle_endtag(self, tag: str) -> None:
        """End a paragraph."""
        if tag == "p":
            self._finish()

    def handle_data(self, data: str) -> None:
        """Take text inside a paragraph."""
        if self._parts is not None:
            self._parts.append(data)

    def _finish(self) -> None:
        if self._parts is not None:
            self.found.append(" ".join("".join(self._parts).split()))
        self._parts = None


def _names() -> list[str]:
    """Return the English name of each emoji with its keywords behind it."""
    rows = pq.read_table(_PACK, columns=["label", "keywords"]).to_pylist()
    return [" ".join([row["label"], *row["keywords"]]).replace(",", "") for row in rows]


def _paragraphs(cache: Path) -> Iterable[str]:
    for package, folder in _BOOKS:
        members = fetch(package, cache / "packages").members(folder)
        for name in sorted(name for name in members if name.endswith(".en.html")):
            parser = Paragraphs()
            parser.feed(members[name].decode("utf-8"))
            yield from parser.found


def _draw(name: str, texts: Sequence[str], bounds: tuple[int, int]) -> tuple[str, ...]:
    fitting = sorted({text for text in texts if has_words(text, bounds)})
    return tuple(random.Random(f"{SEED}-{name}").sample(fitting, NUM_TEXTS))
