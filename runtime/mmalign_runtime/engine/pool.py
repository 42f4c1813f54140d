"""How many threads a run may use, and the door that keeps too many runs from competing for them.

Every session has threads of its own, which sleep between its runs. onnxruntime can share one pool among all sessions of
a process, but then refuses any session, whosever it is, that does not ask for it: not for a library to decide. So
sessions share the processors instead: as many runs of towers go on at once as there are threads, and the others wait
for their turn. More would only push each other out of the caches.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

import msgspec


class Turnstile:
    """Lets a fixed number of callers through at a time, in the order of their arrival.

    A plain semaphore lets whoever is quick go first: with eight callers some waited 1.5 s for a run of 4 ms.
    """

    def __init__(self, width: int) -> None:
        self.width = width
        self._lock = threading.Lock()
        self._free = width
        self._waiting: deque[threading.Lock] = deque()

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
    """The threads of a run, and the door that runs go through."""

    num_threads: int
    turnstile: Turnstile

    @property
    def num_runs(self) -> int:
        """How many runs may go on at once."""
        return self.turnstile.width


_doors: dict[tuple[int, int], Turnstile] = {}
_doors_lock = threading.Lock()


def thread_pool(num_threads: int) -> Pool:
    """Return runs of `num_threads` behind the door that all such runs of this process share."""
    with _doors_lock:  # a forked child has a door of its own: its parent's may have been shut at that moment
        door = _doors.setdefault((os.getpid(), num_threads), Turnstile(num_threads))
    return Pool(num_threads, door)
