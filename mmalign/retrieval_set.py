"""A set of distinct images and distinct captions to search in, and which of them belong together.

An image that several rows name is one candidate, and so is a text that several images have: it is right for all.
Shapes: N images, M captions.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import msgspec

from mmalign.data import Pair, merge_pairs
from mmalign.data.identity import image_identity
from mmalign.retrieval import Relevance

Captions = Literal["first", "all"]


class RetrievalSet(msgspec.Struct, frozen=True):
    """N images, each by the first pair that has it, and M captions.

    `relevant` says that a caption was given to a concept of an image; `groups` are the classes of each image.
    """

    pairs: tuple[Pair, ...]
    texts: tuple[str, ...]
    relevant: Relevance
    groups: tuple[frozenset[str], ...]


def build_retrieval_set(pairs: Sequence[Pair], captions: Captions) -> RetrievalSet:
    """Return what some pairs give to search in, with each image's first caption or all of them."""
    numbers: dict[str, int] = {}
    images: dict[str, list[Pair]] = {}
    concepts_of_text: dict[str, set[int]] = {}
    for pair in merge_pairs(pairs):
        images.setdefault(image_identity(pair), []).append(pair)
        concept = numbers.setdefault(pair.concept, len(numbers))
        for caption in pair.captions[:1] if captions == "first" else pair.captions:
            concepts_of_text.setdefault(caption, set()).add(concept)
    return RetrievalSet(
        pairs=tuple(same[0] for same in images.values()),
        texts=tuple(concepts_of_text),
        relevant=Relevance(
            [tuple(sorted({numbers[pair.concept] for pair in same})) for same in images.values()],
            [tuple(sorted(concepts)) for concepts in concepts_of_text.values()],
        ),
        groups=tuple(frozenset(pair.group for pair in same if pair.group is not None) for same in images.values()),
    )
