"""Signals that let a verb come to a good end: Ctrl-C, SIGTERM, and SIGHUP of a terminal that was closed.

Each verb ends as Ctrl-C ends Python, so that what it was writing is removed. A long run may finish its batch first.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from time import monotonic
from types import FrameType

_SIGNALS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))
# A second signal within this time is the same wish, and must not end what removes the files: a shell that is closed
# sends SIGHUP, and a supervisor SIGTERM.
_SAME_WISH_S = 1.0


class Stop:
    """Whether a signal asked to stop. `at_once`: it raises KeyboardInterrupt instead of waiting to be asked about."""

    def __init__(self) -> None:
        self.at_once = True
        self._signal: int | None = None
        self._raised_at = float("-inf")
        self._process = os.getpid()

    def asked(self) -> bool:
        """Say whether a signal came."""
        return self._signal is not None

    @property
    def exit_code(self) -> int:
        """The exit code as shells have it: 128 and the signal's number."""
        return 128 + (self._signal or signal.SIGINT)

    def note(self, number: int, frame: FrameType | None) -> None:
        """Take note of a signal; the second one does not wait."""
        if os.getpid() != self._process:  # a fork's child, which is to end as if nothing had been set
            signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
            os.kill(os.getpid(), number)
            return
        stops_now = self.at_once or self._signal is not None
        self._signal = number
        if stops_now and monotonic() - self._raised_at > _SAME_WISH_S:
            self._raised_at = monotonic()
            raise KeyboardInterrupt


@contextmanager
def stop_on_signals() -> Iterator[Stop]:
    """Let the signals be noted inside the block, but for those that whoever started the process has it ignore (nohup).

    Outside of the main thread, which alone is told of signals, nothing is noted.
    """
    stop = Stop()
    before = {}
    if threading.current_thread() is threading.main_thread():
        before = {each: signal.getsignal(each) for each in _SIGNALS}
        before = {each: handler for each, handler in before.items() if handler not in (signal.SIG_IGN, None)}
    for number in before:
        signal.signal(number, stop.note)
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
