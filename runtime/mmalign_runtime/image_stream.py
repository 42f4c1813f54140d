"""Images to vectors, batch by batch and in order: while the tower runs on one batch, threads prepare the next.

The items are taken, and the tower is run, in the caller's own thread: whoever stops asking stops everything. Threads
only decode and preprocess, at most two batches in front of what was given out, and a stream that ends or is dropped
waits for the few images that are in their hands. A batch of one image is prepared without them.
Shapes: B batch, S image side, D embedding.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from functools import partial
from itertools import islice
from traceback import clear_frames
from typing import TYPE_CHECKING, Protocol, TypeAlias

import msgspec
import numpy as np
from numpy.typing import NDArray

from mmalign_runtime.errors import ItemError
from mmalign_runtime.freed_memory import give_back_freed_memory
from mmalign_runtime.streaming import OnError, StreamedItem, Vectors, check_settings

if TYPE_CHECKING:
    from mmalign_runtime.image import DetachedImage, ImageItem

PixelValues: TypeAlias = NDArray[np.float32]

# The batch that goes to the tower next, and the one that is prepared meanwhile.
_NUM_BATCHES = 2
_THREAD_NAME = "mmalign-prepare"


class ImageStages(Protocol):
    """What becomes of an image, one stage after the other."""

    num_workers: int
    most_at_once: int | None

    def detach(self, item: ImageItem, index: int) -> DetachedImage:
        """Read what only the caller's thread may read. Raises ItemError."""

    def empty(self, num_images: int) -> PixelValues:
        """Return room for B prepared images, (B, 3, S, S)."""

    def prepare(self, detached: DetachedImage, index: int, room: PixelValues) -> None:
        """Decode and preprocess one image into its room, (3, S, S). Raises ItemError."""

    def tower(self, pixel_values: PixelValues) -> Vectors:
        """Return (B, D) for (B, 3, S, S)."""


def stream_images(
    items: Iterable[ImageItem], stages: ImageStages, batch_size: int, on_error: OnError
) -> Iterator[StreamedItem]:
    """Yield the items' vectors, in order; no batch has more than `batch_size` images, or than suits the tower.

    Raises ValueError at once, before the first item, for settings that make no sense.
    """
    check_settings(batch_size, on_error)
    size = batch_size if stages.most_at_once is None else min(batch_size, stages.most_at_once)
    return _stream(_Batches(items, size), stages, on_error)


def _stream(batches: _Batches, stages: ImageStages, on_error: OnError) -> Iterator[StreamedItem]:
    ahead: deque[_Begun] = deque()
    most = _NUM_BATCHES if batches.size > 1 and stages.num_workers else 1
    with closing(_Workers(stages)) as workers:
        while True:
            while len(ahead) < most and (batch := batches.take()):
                ahead.append(workers.begin(batch))
            if not ahead:
                break
            yield from workers.finish(ahead.popleft(), on_error)
    batches.raise_what_ended_them()


class _Batches:
    """Lists of numbered items; an error of their source keeps until what came before it has been given out."""

    def __init__(self, items: Iterable[ImageItem], size: int) -> None:
        self.size = size
        self._numbered = enumerate(items)
        self._error: Exception | None = None

    def take(self) -> list[tuple[int, ImageItem]]:
        """Return the next items, none at the end."""
        if self._error is not None:
            return []
        try:
            return list(islice(self._numbered, self.size))
        except Exception as error:  # noqa: BLE001 the source may raise anything, and the batches in hand come first
            self._error = error
            return []

    def raise_what_ended_them(self) -> None:
        """Raise the error of the source, if that is how it ended."""
        if self._error is not None:
            raise self._error


class _Begun(msgspec.Struct, frozen=True):
    """A batch on its way: B indices, the room for its pixels (B, 3, S, S), and B calls to see an item through.

    Such a call returns when the item's pixels are in their room, or raises what it met.
    """

    indices: Sequence[int]
    pixel_values: PixelValues
    complete: Sequence[Callable[[], None]]


class _Workers:
    """Threads that prepare images into buffers which go round. No thread is started before a batch needs it."""

    def __init__(self, stages: ImageStages) -> None:
        self._stages = stages
        self._executor: ThreadPoolExecutor | None = None
        self._free: list[PixelValues] = []

    def close(self) -> None:
        """Stop the threads, and wait for what is in their hands."""
        if self._executor is not None:
            self._executor.shutdown(cancel_futures=True)

    def begin(self, batch: Sequence[tuple[int, ImageItem]]) -> _Begun:
        """Have the threads prepare a batch; one image, or one without threads, is prepared when its turn comes."""
        is_shared = self._stages.num_workers > 0 and (len(batch) > 1 or self._executor is not None)
        begin = self._submit if is_shared else self._postpone
        room = self._room(len(batch))
        complete = [begin(item, index, room[row]) for row, (index, item) in enumerate(batch)]
        return _Begun([index for index, _ in batch], room, complete)

    def finish(self, batch: _Begun, on_error: OnError) -> Iterator[StreamedItem]:
        """See a batch through, run the tower on what could be prepared, and yield its items."""
        errors: dict[int, ItemError] = {}
        for index, complete in zip(batch.indices, batch.complete, strict=True):
            try:
                complete()
            except ItemError as error:
                if on_error == "raise":
                    raise
                errors[index] = _without_its_image(error)
        rows = [row for row, index in enumerate(batch.indices) if index not in errors]
        pixel_values = batch.pixel_values[rows] if errors else batch.pixel_values  # (M, 3, S, S)
        vectors = self._stages.tower(pixel_values) if rows else ()
        self._free.append(batch.pixel_values)
        by_index = dict(zip((batch.indices[row] for row in rows), vectors, strict=True))
        for index in batch.indices:
            yield StreamedItem(index, by_index.get(index), errors.get(index), index == batch.indices[-1])

    def _submit(self, item: ImageItem, index: int, room: PixelValues) -> Callable[[], None]:
        if self._executor is None:
            self._executor = ThreadPoolExecutor(self._stages.num_workers, _THREAD_NAME)
        try:
            detached = self._stages.detach(item, index)
        except Exception as error:  # noqa: BLE001 kept for its turn: the first failure in order is the one to raise
            return partial(_raise, error)
        return self._executor.submit(self._stages.prepare, detached, index, room).result

    def _postpone(self, item: ImageItem, index: int, room: PixelValues) -> Callable[[], None]:
        return lambda: self._stages.prepare(self._stages.detach(item, index), index, room)

    def _room(self, num_images: int) -> PixelValues:
        buffer = self._free.pop() if self._free else self._stages.empty(num_images)
        return buffer[:num_images] if len(buffer) >= num_images else self._stages.empty(num_images)


def _without_its_image(error: ItemError) -> ItemError:
    """Return an error that may be kept for long: the frames of its tracebacks held all of a half-decoded image."""
    met: BaseException | None = error
    while met is not None:
        clear_frames(met.__traceback__)
        met = met.__cause__ or met.__context__
    give_back_freed_memory()
    return error


def _raise(error: Exception) -> None:
    raise error
