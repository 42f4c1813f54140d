"""What a report shows of a source in pictures: queries whose right answer came last, and nearest neighbours.

Shapes: Q queries that are shown, C candidates.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterator, Sequence
from io import BytesIO

import msgspec
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from mmalign.evaluation.scoring import Shown
from mmalign.figures.retrieval_set import RetrievalSet
from mmalign.run.pairs import decode_pair

NUM_WORST, NUM_NEIGHBOURS, NUM_FOUND = 12, 8, 5
_SIDE = 96  # of a thumbnail, shown at 48 to 72 pixels
_QUALITY = 70  # of its WebP: 1 to 3 KB
_MOST_CAPTIONS = 6


class Tile(msgspec.Struct, frozen=True):
    """An image as the report has it: a data URI, and the captions of its concept."""

    uri: str
    captions: tuple[str, ...]


class Text(msgspec.Struct, frozen=True):
    """A caption, and whether it is right for what it stands beside."""

    text: str
    is_right: bool


class ImageQuery(msgspec.Struct, frozen=True):
    """An image, the rank of its best caption, the captions that came first, and the nearest other images."""

    query: Tile
    rank: int
    texts: tuple[Text, ...]
    images: tuple[Tile, ...] = ()


class TextQuery(msgspec.Struct, frozen=True):
    """A caption, the rank of its best image, an image of its own, and the images that came first."""

    text: str
    rank: int
    own: Tile
    images: tuple[Tile, ...]


class Pictures(msgspec.Struct, frozen=True):
    """All that is shown of a source."""

    name: str
    worst_images: tuple[ImageQuery, ...]
    worst_texts: tuple[TextQuery, ...]
    neighbours: tuple[ImageQuery, ...]


def pictures(shown: Shown) -> Pictures:
    """Return the worst queries both ways, one a concept, and the neighbours of images spread over all of them."""
    items, ranks_of_images = shown.items, shown.answers.image_to_text.ranks
    ranks_of_texts = shown.answers.text_to_image.ranks
    worst_images = _worst(ranks_of_images, items.relevant.query_labels)
    worst_texts = _worst(ranks_of_texts, items.relevant.candidate_labels)
    spread = np.linspace(0, len(items.pairs) - 1, min(NUM_NEIGHBOURS, len(items.pairs))).round().astype(np.int64)
    return Pictures(
        shown.name,
        tuple(_of_images(shown, worst_images, with_images=False)),
        tuple(_of_texts(shown, worst_texts)),
        tuple(_of_images(shown, spread, with_images=True)),
    )


def _worst(ranks: NDArray[np.float64], labels: Sequence[tuple[int, ...]]) -> NDArray[np.int64]:
    """Return the queries with the highest ranks above 1, one of each concept."""
    chosen: dict[int, int] = {}
    for query in np.argsort(-ranks, kind="stable").tolist():
        if ranks[query] == 1 or len(chosen) == NUM_WORST:
            break
        chosen.setdefault(labels[query][0], query)
    return np.array(list(chosen.values()), np.int64)


def _of_images(shown: Shown, rows: NDArray[np.int64], *, with_images: bool) -> Iterator[ImageQuery]:
    items, vectors = shown.items, shown.vectors
    texts = _nearest(vectors.images[rows], vectors.texts, NUM_FOUND)
    others = _nearest(vectors.images[rows], vectors.images, NUM_FOUND + 1)
    for row, found, near in zip(rows.tolist(), texts, others, strict=True):
        right = set(items.relevant.right(row).tolist())
        yield ImageQuery(
            _tile(shown, row),
            int(shown.answers.image_to_text.ranks[row]),
            tuple(Text(items.texts[column], column in right) for column in found),
            tuple(_tile(shown, other) for other in near if other != row)[:NUM_FOUND] if with_images else (),
        )


def _of_texts(shown: Shown, rows: NDArray[np.int64]) -> Iterator[TextQuery]:
    items, vectors = shown.items, shown.vectors
    relevant = items.relevant.reversed()
    for row, found in zip(rows.tolist(), _nearest(vectors.texts[rows], vectors.images, NUM_FOUND), strict=True):
        own = relevant.right(row)
        nearest_own = int(own[int((vectors.images[torch.from_numpy(own)] @ vectors.texts[row]).argmax())])
        yield TextQuery(
            items.texts[row],
            int(shown.answers.text_to_image.ranks[row]),
            _tile(shown, nearest_own),
            tuple(_tile(shown, image) for image in found),
        )


def _nearest(queries: Tensor, candidates: Tensor, num_found: int) -> list[list[int]]:
    """Return the numbers of the nearest candidates of each query, nearest first."""
    found: list[list[int]] = (queries @ candidates.T).topk(min(num_found, len(candidates)), dim=1).indices.tolist()
    return found


def _tile(shown: Shown, row: int) -> Tile:
    pair = shown.items.pairs[row]
    picture = Image.fromarray(decode_pair(pair, shown.image_spec, row))
    picture.thumbnail((_SIDE, _SIDE))
    buffer = BytesIO()
    picture.save(buffer, "WEBP", quality=_QUALITY)
    uri = f"data:image/webp;base64,{b64encode(buffer.getvalue()).decode()}"
    return Tile(uri, _captions(shown.items, row))


def _captions(items: RetrievalSet, row: int) -> tuple[str, ...]:
    return tuple(items.texts[column] for column in items.relevant.right(row)[:_MOST_CAPTIONS].tolist())
