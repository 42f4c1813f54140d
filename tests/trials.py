"""Trials that CI makes few of: MMALIGN_TRIALS=2000 in the environment makes more. And a process killed at its work."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable


def num_trials(few: int) -> int:
    """Return how many trials to make: `few` unless the environment says otherwise."""
    return int(os.environ.get("MMALIGN_TRIALS", few))


def killed(work: Callable[[int], None], after_s: float) -> None:
    """Let a forked child work, again and again with the next number, and kill it so many seconds after it did once.

    Its work must not call what shares out an operation among torch's threads: a fork has none of them.
    """
    worked, tell = os.pipe()
    child = os.fork()
    if child == 0:
        number = 0
        try:
            while True:
                work(number)
                if number == 0:
                    os.write(tell, b"1")
                number += 1
        finally:
            os._exit(1)
    os.close(tell)
    with os.fdopen(worked, "rb") as file:
        file.read(1)  # empty where the child has ended
    time.sleep(after_s)
    os.kill(child, signal.SIGKILL)
    assert os.WIFSIGNALED(os.waitpid(child, 0)[1]), "the work failed by itself"
