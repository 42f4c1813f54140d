"""What comes out of a stream of items, and the rules that both kinds of streams share.

`image_stream` and `text_stream` say how batches are made; one bad item never costs its batch.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal, TypeAlias, get_args

import msgspec
import numpy as np
from numpy.typing import NDArray

from mmalign_runtime.arguments import as_count
from mmalign_runtime.errors import ItemError

Vectors: TypeAlias = NDArray[np.float32]
OnError: TypeAlias = Literal["raise", "skip"]


class PartialBatch(msgspec.Struct, frozen=True):
    """What `on_error="skip"` returns: `vectors` (M, D), the `indices` (M,) of their items, and the failures."""

    vectors: Vectors
    indices: NDArray[np.int64]
    errors: tuple[ItemError, ...]


class StreamedItem(msgspec.Struct, frozen=True):
    """One item of a stream: its `vector` (D,), or the `error` that it met.

    `ends_window` is true where no batch holds both an item up to this one and a later one: a stream that is broken off
    here and begun again with the next item gives the same vectors, to the last bit. `truncated` is true for a text that
    had more tokens than the bundle's context length, and lost its end before the tower.
    """

    index: int
    vector: Vectors | None
    error: ItemError | None
    ends_window: bool
    truncated: bool = False


def check_settings(batch_size: int, on_error: OnError) -> None:
    """Raise ValueError for a batch size below 1 and another `on_error` than there is."""
    as_count(batch_size, "batch_size")
    if on_error not in get_args(OnError):
        raise ValueError(f"on_error is {on_error!r}, expected one of {', '.join(get_args(OnError))}.")


def gather(stream: Iterator[StreamedItem], embed_dim: int, on_error: OnError) -> Vectors | PartialBatch:
    """Collect a stream to (N, D), or to a PartialBatch where failures were skipped."""
    indices: list[int] = []
    vectors: list[Vectors] = []
    errors: list[ItemError] = []
    for item in stream:
        if item.vector is not None:
            indices.append(item.index)
            vectors.append(item.vector)
        elif item.error is not None:
            errors.append(item.error)
    stacked = np.stack(vectors) if vectors else np.empty((0, embed_dim), np.float32)  # (M, D)
    if on_error == "raise":
        return stacked
    return PartialBatch(stacked, np.array(indices, np.int64), tuple(errors))
