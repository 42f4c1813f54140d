"""Any number of items to vectors, one batch in memory at a time; one bad item never costs its batch."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain, islice
from typing import Literal, TypeAlias, TypeVar, get_args

import msgspec
import numpy as np
from numpy.typing import NDArray

from mmalign_runtime.errors import ItemError

Vectors: TypeAlias = NDArray[np.float32]
OnError: TypeAlias = Literal["raise", "skip"]
Item = TypeVar("Item")
Prepared = TypeVar("Prepared")


class PartialBatch(msgspec.Struct, frozen=True):
    """What `on_error="skip"` returns: `vectors` (M, D), the `indices` (M,) of their items, and the failures."""

    vectors: Vectors
    indices: NDArray[np.int64]
    errors: tuple[ItemError, ...]


class StreamedItem(msgspec.Struct, frozen=True):
    """One item of a stream: its `vector` (D,), or the `error` that it met."""

    index: int
    vector: Vectors | None
    error: ItemError | None


def stream_batches(
    items: Iterable[Item],
    prepare: Callable[[Item, int], Prepared],
    embed: Callable[[Sequence[Prepared]], Vectors],
    batch_size: int,
    on_error: OnError,
) -> Iterator[StreamedItem]:
    """Prepare and embed items batch by batch, yielding them in order.

    Raises ValueError at once, before the first item, for a batch size below 1 and another `on_error` than there is.
    """
    if isinstance(batch_size, bool) or not isinstance(batch_size, int) or batch_size < 1:
        raise ValueError(f"batch_size is {batch_size!r}, expected a whole number of at least 1.")
    if on_error not in get_args(OnError):
        raise ValueError(f"on_error is {on_error!r}, expected one of {', '.join(get_args(OnError))}.")
    numbered = enumerate(items)
    batches = iter(lambda: list(islice(numbered, batch_size)), [])
    return chain.from_iterable(_embed_batch(batch, prepare, embed, on_error) for batch in batches)


def _embed_batch(
    batch: Sequence[tuple[int, Item]],
    prepare: Callable[[Item, int], Prepared],
    embed: Callable[[Sequence[Prepared]], Vectors],
    on_error: OnError,
) -> Iterator[StreamedItem]:
    prepared: dict[int, Prepared] = {}
    errors: dict[int, ItemError] = {}
    for index, item in batch:
        try:
            prepared[index] = prepare(item, index)
        except ItemError as error:
            if on_error == "raise":
                raise
            errors[index] = error
    vectors = dict(zip(prepared, embed(list(prepared.values())), strict=True)) if prepared else {}
    for index, _ in batch:
        yield StreamedItem(index, vectors.get(index), errors.get(index))


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
