"""A set of images and captions to search in, and which of them belong together.

Several captions an image and several images a caption are all right answers; a text that two concepts share is one
candidate that is right for both. Shapes: N images, M captions.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import msgspec
import torch
from torch import Tensor

from mmalign.data import Pair

Captions = Literal["first", "all"]


class Pool(msgspec.Struct, frozen=True):
    """Images, distinct captions, and `relevant` (N, M) bool: caption m was given to the concept of image n."""

    pairs: tuple[Pair, ...]
    texts: tuple[str, ...]
    relevant: Tensor


def build_pool(pairs: Sequence[Pair], captions: Captions) -> Pool:
    """Return the pool of some pairs, with each pair's first caption or all of them."""
    concepts_of_text: dict[str, set[str]] = {}
    for pair in pairs:
        for caption in pair.captions[:1] if captions == "first" else pair.captions:
            concepts_of_text.setdefault(caption, set()).add(pair.concept)
    columns: dict[str, list[int]] = {}
    for column, concepts in enumerate(concepts_of_text.values()):
        for concept in concepts:
            columns.setdefault(concept, []).append(column)
    relevant = torch.zeros(len(pairs), len(concepts_of_text), dtype=torch.bool)  # (N, M)
    for row, pair in enumerate(pairs):
        relevant[row, columns[pair.concept]] = True
    return Pool(tuple(pairs), tuple(concepts_of_text), relevant)
