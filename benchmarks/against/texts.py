"""Sets of English texts as services get them: what people type, captions, paragraphs, and a mix of the three.

queries      3 to 8 words: names and keywords of the emoji packs
captions     8 to 20 words: sentences of the Debian FAQ and the Debian Reference
paragraphs   40 words and more, up to the context length and beyond: paragraphs of the same books
mixed        a third of each
"""

import random
import re
from collections.abc import Iterable, Sequence
from html import unescape
from pathlib import Path

import pyarrow.parquet as pq

from benchmarks.against.images import mix
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
    return sets | {"mixed": mix(tuple(sets.values()))}


def has_words(text: str, bounds: tuple[int, int]) -> bool:
    return bounds[0] <= len(text.split()) <= bounds[1]


def paragraphs_of(page: str) -> list[str]:
    """Return the text of every <p> of a page, white space folded."""
    found = re.findall(r"<p(?:\s[^>]*)?>(.*?)(?=<p[\s>]|</p>)", page, re.DOTALL)
    return [" ".join(unescape(re.sub(r"<[^>]*>", "", text)).split()) for text in found]


def _names() -> list[str]:
    rows = pq.read_table(_PACK, columns=["label", "keywords"]).to_pylist()
    return [" ".join([row["label"], *row["keywords"]]).replace(",", "") for row in rows]


def _paragraphs(cache: Path) -> Iterable[str]:
    for package, folder in _BOOKS:
        members = fetch(package, cache / "packages").members(folder)
        for name in sorted(name for name in members if name.endswith(".en.html")):
            yield from paragraphs_of(members[name].decode("utf-8"))


def _draw(name: str, texts: Sequence[str], bounds: tuple[int, int]) -> tuple[str, ...]:
    fitting = sorted({text for text in texts if has_words(text, bounds)})
    return tuple(random.Random(f"{SEED}-{name}").sample(fitting, NUM_TEXTS))
