"""The second stage of `search`: what a text sees in the images of its candidates, read when they are first found."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mmalign_runtime.attention import RegionAttention
from mmalign_runtime.errors import InputError
from mmalign_runtime.image import ImageItem
from mmalign_runtime.names import as_text

# Images whose tokens are kept for queries to come: 51 MB of the demo's bundle, with 50 tokens of 256 numbers each.
_MOST_KEPT = 1000


class RegionReranker:
    """Scores a text against candidates by id: a `second_stage` for `search`.

    Example:
        >>> stage = RegionReranker(embedder.attention, images_in("photos"))  # doctest: +SKIP
        >>> search(query, saved, top_k=10, space_id=embedder.space_id, rerank=20, second_stage=stage)  # doctest: +SKIP
    """

    def __init__(
        self, attention: RegionAttention, image_of: Callable[[str], ImageItem], *, most_kept: int = _MOST_KEPT
    ) -> None:
        """Take an embedder's attention, and what gives the image of an id: a path, bytes, or a picture.

        The tokens of the `most_kept` images that were candidates last are kept.
        """
        self._attention = attention
        self._image_of = image_of
        self._most_kept = most_kept
        self._kept: OrderedDict[str, NDArray[np.float32]] = OrderedDict()

    def __call__(self, query: NDArray[np.float32], ids: Sequence[str]) -> NDArray[np.float32]:
        """Return the scores (C,) of a text's vector (D,) against the images of C ids.

        Raises ItemError for an image that cannot be read, and as `image_of` does.
        """
        tokens = dict(zip(ids, self._tokens(ids), strict=True))
        self._kept |= tokens
        for name in tokens:
            self._kept.move_to_end(name)
        while len(self._kept) > self._most_kept:
            self._kept.popitem(last=False)
        if not tokens:
            return np.empty(0, np.float32)
        attended = self._attention.attend(query[None], np.stack([tokens[name] for name in ids]))
        return np.ascontiguousarray(attended.scores[0])  # (C,)

    def _tokens(self, ids: Sequence[str]) -> list[NDArray[np.float32]]:
        unknown = [name for name in dict.fromkeys(ids) if name not in self._kept]
        computed = self._attention.encode_regions([self._image_of(name) for name in unknown])
        found = self._kept | dict(zip(unknown, computed, strict=True))
        return [found[name] for name in ids]


def images_in(folder: str | Path) -> Callable[[str], Path]:
    """Return what gives the image file of an id, for ids that `mmalign embed` made of a folder: paths relative to it.

    It raises InputError for an id of which there is no file.
    """
    root = Path(folder)

    def image_of(name: str) -> Path:
        path = root / name
        if not path.is_file():
            raise InputError(
                f"{as_text(str(path))}: there is no such file, and the id {as_text(name)!r} is to be reranked by its "
                "image. Name the folder that was embedded."
            )
        return path

    return image_of
