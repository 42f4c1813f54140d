"""Embedding of any number of items into parts: what is done stays done, whatever stops the run.

A part begins where the embedder begins a window of batches, whether its end came by count or by the clock. So a run
that goes on forms the very batches of a run that nothing stopped, and its vectors are the same to the bit.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Literal, TypeAlias, cast

import msgspec

from mmalign_runtime.bulk.entries import Entry, Source
from mmalign_runtime.bulk.parts import Part, PartsFolder, Span
from mmalign_runtime.config import DEFAULT_BATCH_SIZE
from mmalign_runtime.embedder import Embedder
from mmalign_runtime.errors import EngineError, InputError, ItemError
from mmalign_runtime.saved.manifest import Manifest
from mmalign_runtime.spec import Modality
from mmalign_runtime.streaming import StreamedItem

# 32 MB of vectors of 512: held in memory until the part is written, and the row group that a reader reads at once.
DEFAULT_PART_ROWS = 16384
# What a kill may cost, where a part takes longer than this to fill.
PART_SECONDS = 60.0
_NAME_LENGTH = 40

OnFailure: TypeAlias = Literal["record", "skip", "raise"]


class Job(msgspec.Struct, frozen=True):
    """How to embed; `part_seconds` closes a part early, after the window at hand."""

    kind: Modality
    batch_size: int = DEFAULT_BATCH_SIZE
    part_rows: int = DEFAULT_PART_ROWS
    part_seconds: float = PART_SECONDS
    on_error: OnFailure = "record"


class Result(msgspec.Struct, frozen=True):
    """What became of one entry: exactly one of `streamed.vector` and `error` is there."""

    entry: Entry
    streamed: StreamedItem
    error: ItemError | None


def embed_parts(
    embedder: Embedder,
    source: Source,
    parts: PartsFolder,
    manifest: Manifest,
    job: Job,
    *,
    advance: Callable[[int], None] = lambda num_items: None,
    stopped: Callable[[], bool] = lambda: False,
) -> bool:
    """Embed every item that no part stands for yet, and return whether all of them are done now.

    `advance` is told of each window of batches; when `stopped` says so, the window at hand is finished, its part
    written, and the rest left. Raises ItemError for the first failure when `job.on_error` is "raise", and InputError
    when the input or the disk fails or the tower runs out of memory; then, too, the whole windows so far are written.
    """
    for gap in parts.gaps(len(source)):
        entries = islice(source.entries(gap.start), gap.stop - gap.start)
        writer = PartWriter(parts, manifest, job, gap.start)
        try:
            for window in _windows(embedder, entries, job, gap):
                writer.add(window)
                advance(len(window))
                if stopped():
                    break
        finally:
            writer.flush()
        if stopped():
            break
    return not parts.gaps(len(source))


def stream_entries(embedder: Embedder, entries: Iterator[Entry], job: Job, first: int = 0) -> Iterator[Result]:
    """Embed entries in order, and name each failure by its number in the input; `first` is that of the first entry."""
    waiting: deque[Entry] = deque()
    for streamed in _stream(embedder, entries, waiting, job):
        entry, number, error = waiting.popleft(), first + streamed.index, streamed.error
        if entry.problem is not None:
            error = _not_read(number, entry.item, entry.problem)
        elif error is not None:
            error = error.at(number)
        if error is not None and job.on_error == "raise":
            raise error
        yield Result(entry, streamed, error)


class PartWriter:
    """Gathers whole windows to a part, and writes it when it is full or its time is up."""

    def __init__(self, parts: PartsFolder, manifest: Manifest, job: Job, first: int) -> None:
        self._parts = parts
        self._manifest = manifest
        self._job = job
        self._begin(first)

    def add(self, window: list[Result]) -> None:
        """Take one window. Raises InputError when its part is due and cannot be written."""
        part = self._part
        for result in window:
            part.add(result.entry.id, result.streamed, result.error)
        if part.num_items >= self._job.part_rows or time.monotonic() - self._since >= self._job.part_seconds:
            self.flush()

    def flush(self) -> None:
        """Write what was gathered, if anything, and begin the next part. What could not be written is let go."""
        part = self._part
        self._begin(part.first + part.num_items)
        if part.num_items:
            self._parts.write(part, self._manifest)

    def _begin(self, first: int) -> None:
        self._part = Part(first)
        self._since = time.monotonic()


def _windows(embedder: Embedder, entries: Iterator[Entry], job: Job, gap: Span) -> Iterator[list[Result]]:
    window: list[Result] = []
    done = gap.start
    try:
        for result in stream_entries(embedder, entries, job, gap.start):
            window.append(result)
            if result.streamed.ends_window:
                yield window
                done += len(window)
                window = []
    except (EngineError, MemoryError) as error:
        seen = " ".join(str(error).split()).rstrip(".") or type(error).__name__
        fix = "If memory ran out, free some and go on with --resume, or start afresh with a smaller --batch-size."
        raise InputError(f"the batch from item {done} on could not be embedded: {seen}. {fix}") from error


def _not_read(number: int, item: str | Path | bytes, problem: str) -> ItemError:
    if isinstance(item, str):  # a text, which cannot be shown as it is
        return ItemError(number, ascii(item[:_NAME_LENGTH]), "tokenize", problem)
    return ItemError(number, str(item), "open", problem)


def _stream(embedder: Embedder, entries: Iterator[Entry], waiting: deque[Entry], job: Job) -> Iterator[StreamedItem]:
    def items() -> Iterator[str | Path | bytes | None]:
        for entry in entries:
            waiting.append(entry)
            # A None is refused in the entry's place, so that the batch around it stays what it is.
            yield None if entry.problem is not None else entry.item

    if job.kind == "image":
        images = cast("Iterator[str | Path | bytes]", items())
        return embedder.stream_images(images, batch_size=job.batch_size, on_error="skip")
    return embedder.stream_texts(cast("Iterator[str]", items()), batch_size=job.batch_size, on_error="skip")
