"""How many threads a run may use, and how many runs of a process go on at once.

Every session has threads of its own, which sleep between its runs. onnxruntime can share one pool among all sessions of
a process, but then refuses any session, whosever it is, that does not ask for it: not for a library to decide. So
sessions share the processors instead: as many runs of towers go on at once as there are threads, and the others wait
in the order of their arrival. More would only push each other out of the caches.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

import msgspec


class FifoSemaphore:
    """Lets a number of callers in at a time, in the order of their arrival.

    A plain semaphore lets whoever is quick go first: with eight callers some waited 1.5 s for a run of 4 ms.
    """

    def __init__(self, width: int) -> None:
        self.width = width
        self._lock = threading.Lock()
        self._free = width
        self._waiting: deque[threading.Lock] = deque()

    def widen(self, width: int) -> None:
        """Let at least so many callers in at a time from now on."""
        with self._lock:
            num_more = max(0, width - self.width)
            self.width += num_more
        for _ in range(num_more):
            self._leave()

    @contextmanager
    def turn(self) -> Iterator[None]:
        """Wait for a turn, and hold it for the block."""
        self._enter()
        try:
            yield
        finally:
            self._leave()

    def _enter(self) -> None:
        with self._lock:
            if self._free and not self._waiting:
                self._free -= 1
                return
            ticket = threading.Lock()
            ticket.acquire()
            self._waiting.append(ticket)
        try:
            ticket.acquire()  # until _leave releases it
        except BaseException:  # KeyboardInterrupt while waiting: give the place up, or the turn if it has just come
            self._abandon(ticket)
            raise

    def _leave(self) -> None:
        with self._lock:
            if self._waiting:
                self._waiting.popleft().release()  # the turn passes on; _free stays as it is
            else:
                self._free += 1

    def _abandon(self, ticket: threading.Lock) -> None:
        with self._lock:
            if ticket in self._waiting:
                self._waiting.remove(ticket)
                return
        self._leave()


class Pool(msgspec.Struct, frozen=True):
    """The threads of a run, and what its runs wait for: `own` counts those with as many threads, `shared` all."""

    num_threads: int
    own: FifoSemaphore
    shared: FifoSemaphore

    @property
    def num_runs(self) -> int:
        """How many runs may go on at once."""
        return self.own.width

    @contextmanager
    def turn(self) -> Iterator[None]:
        """Wait until a run may go on, for the block."""
        with self.own.turn(), self.shared.turn():
            yield

    def with_threads(self, num_threads: int) -> Pool:
        """Return the same pool for runs of another number of threads."""
        return msgspec.structs.replace(self, num_threads=num_threads)


_own: dict[tuple[int, int], FifoSemaphore] = {}
_shared: dict[int, FifoSemaphore] = {}
_lock = threading.Lock()


def thread_pool(num_threads: int) -> Pool:
    """Return runs of `num_threads`: so many of them at once, and of all runs of the process as many as the most asked.

    A run with any number of threads counts once: none keeps more than about one processor busy all the time.
    """
    process_id = os.getpid()  # a forked child has its own: its parent's may have been taken at that moment
    with _lock:
        own = _own.setdefault((process_id, num_threads), FifoSemaphore(num_threads))
        shared = _shared.setdefault(process_id, FifoSemaphore(num_threads))
    shared.widen(num_threads)
    return Pool(num_threads, own, shared)
