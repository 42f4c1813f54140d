"""Ctrl-C and SIGTERM that let a long run come to a good end: the batch at hand is finished, then the run stops."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Stop:
    """Whether a signal asked to stop. `at_once`: it raises KeyboardInterrupt instead of waiting to be asked about."""

    def __init__(self) -> None:
        self.at_once = True
        self._signal: int | None = None

    def asked(self) -> bool:
        """Say whether a signal came."""
        return self._signal is not None

    @property
    def exit_code(self) -> int:
        """The exit code as shells have it: 128 and the signal's number."""
        return 128 + (self._signal or signal.SIGINT)

    def note(self, number: int, frame: FrameType | None) -> None:
        """Take note of a signal; the second one does not wait."""
        stops_now = self.at_once or self._signal is not None
        self._signal = number
        if stops_now:
            raise KeyboardInterrupt


@contextmanager
def stop_on_signals() -> Iterator[Stop]:
    """Let SIGINT and SIGTERM be noted inside the block. For the main thread alone."""
    stop = Stop()
    before = {number: signal.signal(number, stop.note) for number in _SIGNALS}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
