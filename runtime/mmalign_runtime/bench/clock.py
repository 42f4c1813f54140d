"""The clock that loops read and sleep by: the machine's own, or a test's."""

from __future__ import annotations

import time
from typing import Protocol


class Clock(Protocol):
    """Seconds from some moment on, and a way to wait."""

    def now(self) -> float:
        """Return the seconds since the clock's moment."""

    def sleep(self, seconds: float) -> None:
        """Wait."""


class SystemClock:
    """The machine's monotonic clock of the finest grain."""

    def now(self) -> float:
        """Return `time.perf_counter()`."""
        return time.perf_counter()

    def sleep(self, seconds: float) -> None:
        """Wait as `time.sleep` does."""
        time.sleep(seconds)


SYSTEM_CLOCK = SystemClock()
