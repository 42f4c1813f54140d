"""The encoded images of pairs, shared with worker processes: they read those held as bytes from one file.

Pickled with the rest, the bytes would be copied into every worker. The file has no name: it is passed on as a file
descriptor, and the system removes it with the last process that has it open, however that ends.
"""

from __future__ import annotations

import os
import tempfile
import weakref
from collections.abc import Callable, Sequence
from multiprocessing import reduction
from typing import Protocol

import msgspec

from mmalign.data import Pair
from mmalign.errors import TrainingError

Span = tuple[int, int]  # offset and size in bytes


class _Spool(msgspec.Struct, frozen=True):
    """An open file, and where in it each pair's image is; None for a pair that has a path."""

    descriptor: int
    spans: tuple[Span | None, ...]


class _Passed(Protocol):
    """A file descriptor on its way to another process."""

    def detach(self) -> int: ...


class ImageStore:
    """Pairs by their row. In this process images stay as they are; a pickled copy reads bytes from the file."""

    def __init__(self, pairs: Sequence[Pair]) -> None:
        self._pairs = pairs
        self._written: _Spool | None = None  # for copies
        self._source: _Spool | None = None  # of a copy

    def __getitem__(self, row: int) -> Pair:
        """Return one pair, its image a path or the encoded bytes."""
        pair = self._pairs[row]
        if self._source is None or (span := self._source.spans[row]) is None:
            return pair
        offset, size = span
        return msgspec.structs.replace(pair, image=os.pread(self._source.descriptor, size, offset))

    def __reduce__(self) -> tuple[Callable[..., ImageStore], tuple[object, ...]]:
        """Give the pairs without their bytes, and the file. Raises TrainingError where it cannot be written."""
        spool = self._source or self._written
        if spool is None and any(isinstance(pair.image, bytes) for pair in self._pairs):
            spool = self._written = _write_spool(self, self._pairs)
        light = [msgspec.structs.replace(pair, image=b"") if _has_bytes(pair) else pair for pair in self._pairs]
        return _copy, (light, None, ()) if spool is None else (light, reduction.DupFd(spool.descriptor), spool.spans)


def _copy(pairs: Sequence[Pair], file: _Passed | None, spans: tuple[Span | None, ...]) -> ImageStore:
    store = ImageStore(pairs)
    if file is not None:
        store._source = _Spool(file.detach(), spans)
        weakref.finalize(store, os.close, store._source.descriptor)
    return store


def _has_bytes(pair: Pair) -> bool:
    return isinstance(pair.image, bytes)


def _write_spool(owner: ImageStore, pairs: Sequence[Pair]) -> _Spool:
    spans: list[Span | None] = []
    try:
        file = tempfile.TemporaryFile()  # noqa: SIM115 open as long as its owner is there
        weakref.finalize(owner, file.close)
        for pair in pairs:
            spans.append((file.tell(), len(pair.image)) if isinstance(pair.image, bytes) else None)
            if isinstance(pair.image, bytes):
                file.write(pair.image)
        file.flush()
    except OSError as error:
        raise TrainingError(
            f"the images cannot be shared with worker processes: {tempfile.gettempdir()} cannot be written to "
            f"({error.strerror}). Set TMPDIR to a folder with room for them, or train.num_workers = 0."
        ) from error
    return _Spool(file.fileno(), tuple(spans))
