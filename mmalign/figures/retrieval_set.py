"""A set of distinct images and distinct captions to search in, and which of them belong together.

An image that several rows name is one candidate, and so is a text that several images have: it is right for all.
Shapes: N images, M captions.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal

import msgspec

from mmalign.data import Pair, merge_pairs
from mmalign.data.identity import image_identity
from mmalign.figures.graded import GradedRelevance
from mmalign.figures.retrieval import Relevance

Captions = Literal["first", "all"]


class RetrievalSet(msgspec.Struct, frozen=True):
    """N images, each by the first pair that has it, and M captions.

    `relevant` says that a caption was given to a concept of an image; `groups` are the classes of each image.
    `keywords` are all captions of each concept by its number, in small letters. `languages` are the numbers of the
    captions of each language that a source names, with the concepts that have the caption in that language.
    """

    pairs: tuple[Pair, ...]
    texts: tuple[str, ...]
    relevant: Relevance
    groups: tuple[frozenset[str], ...]
    keywords: tuple[frozenset[str], ...]
    languages: dict[str, dict[int, tuple[int, ...]]]

    def graded(self) -> GradedRelevance:
        """Return how relevant captions are to images, those of other concepts too."""
        return GradedRelevance(self.relevant, self.keywords)


def build_retrieval_set(pairs: Sequence[Pair], captions: Captions) -> RetrievalSet:
    """Return what some pairs give to search in, with each image's first caption or all of them."""
    numbers: dict[str, int] = {}
    images: dict[str, list[Pair]] = {}
    concepts_of_text: dict[str, set[int]] = {}
    keywords: dict[int, set[str]] = {}
    languages: dict[str, dict[str, set[int]]] = {}
    for pair in merge_pairs(pairs):
        images.setdefault(image_identity(pair), []).append(pair)
        concept = numbers.setdefault(pair.concept, len(numbers))
        keywords.setdefault(concept, set()).update(caption.casefold() for caption in pair.captions)
        for language, caption in _chosen(pair, captions):
            concepts_of_text.setdefault(caption, set()).add(concept)
            if language is not None:
                languages.setdefault(language, {}).setdefault(caption, set()).add(concept)
    position = {text: at for at, text in enumerate(concepts_of_text)}
    return RetrievalSet(
        pairs=tuple(same[0] for same in images.values()),
        texts=tuple(concepts_of_text),
        relevant=Relevance(
            [tuple(sorted({numbers[pair.concept] for pair in same})) for same in images.values()],
            [tuple(sorted(concepts)) for concepts in concepts_of_text.values()],
        ),
        groups=tuple(frozenset(pair.group for pair in same if pair.group is not None) for same in images.values()),
        keywords=tuple(frozenset(keywords[number]) for number in range(len(numbers))),
        languages={
            name: {position[text]: tuple(sorted(concepts)) for text, concepts in texts.items()}
            for name, texts in languages.items()
        },
    )


def _chosen(pair: Pair, captions: Captions) -> Iterator[tuple[str | None, str]]:
    """Yield the captions that count, with their languages; of the first ones, one of each language."""
    known = {caption for _, caption in pair.languages}
    unnamed = ((None, caption) for caption in pair.captions if caption not in known)
    seen: set[str | None] = set()
    for language, caption in (*pair.languages, *unnamed):
        if captions == "all" or language not in seen:
            yield language, caption
        seen.add(language)
