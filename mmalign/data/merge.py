"""One pair an image: rows that repeat an image, as tables with a row a caption do, become one pair with all captions.

So the same data gives the same pairs in the same order in whatever form it is read.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import msgspec

from mmalign.data.identity import image_identity
from mmalign.data.pair import Pair


def merge_pairs(pairs: Iterable[Pair]) -> tuple[Pair, ...]:
    """Join the pairs of one image and one concept, ordered by concept, image and class.

    Captions keep their order, each once. Pairs of one image with different classes stay apart; one without a class
    joins the first of the others.
    """
    rows: dict[tuple[str, str], list[Pair]] = {}
    for pair in pairs:
        rows.setdefault((pair.concept, image_identity(pair)), []).append(pair)
    return tuple(merged for key in sorted(rows) for merged in _merge(key[1], rows[key]))


def _merge(image_id: str, pairs: list[Pair]) -> Iterator[Pair]:
    named = sorted({pair.group for pair in pairs if pair.group is not None})
    groups: list[str | None] = [*named] or [None]
    for group in groups:
        own = [pair for pair in pairs if (groups[0] if pair.group is None else pair.group) == group]
        captions = tuple(dict.fromkeys(caption for pair in own for caption in pair.captions))
        languages = tuple(dict.fromkeys(named for pair in own for named in pair.languages))
        yield msgspec.structs.replace(own[0], captions=captions, group=group, image_id=image_id, languages=languages)
