"""kill -9 at random moments: a process forked from one that has imported everything does the work, and is killed.

Forked, because importing torch takes longer than most of the work. What a child gets done before a given moment is
learned from runs to the end, so that the moments spread over the whole of it.
"""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec

# The child ends here when the work raises; the parent takes anything but 0 and SIGKILL for a fault of the script.
_FAILED = 70
# Longer than any work here takes to come to a phase.
_MAX_WAIT_S = 60


class Killed(msgspec.Struct, frozen=True):
    """One trial: when the signal was sent, whether the child was still at work, and what it had come to."""

    after_ms: float
    was_running: bool
    phase: str


def measure(work: Callable[[], None], num_runs: int) -> float:
    """Let children do all of the work, and return the longest time that took, in seconds. Raises RuntimeError."""
    longest_s = 0.0
    for _ in range(num_runs):
        start_s = time.perf_counter()
        status = os.waitpid(_start(work), 0)[1]
        if status != 0:
            raise RuntimeError(f"the work that was to be killed fails by itself (status {status})")
        longest_s = max(longest_s, time.perf_counter() - start_s)
    return longest_s


def kill_at(work: Callable[[], None], after_s: float, phase_file: Path, phase: str = "") -> Killed:
    """Start the work, kill it after so many seconds, counted from the start or a phase, and say what it had come to."""
    phase_file.unlink(missing_ok=True)
    start_s = time.perf_counter()
    child = _start(work)
    while phase and not (phase_file.exists() and phase in phase_file.read_text()):
        if time.perf_counter() - start_s > _MAX_WAIT_S:
            os.kill(child, signal.SIGKILL)
            raise RuntimeError(f"the work never came to {phase!r}")
    start_s = time.perf_counter() if phase else start_s
    time.sleep(max(0.0, after_s - (time.perf_counter() - start_s)))
    os.kill(child, signal.SIGKILL)  # a child that is through waits for its parent: the signal does nothing then
    status = os.waitpid(child, 0)[1]
    was_running = os.WIFSIGNALED(status)
    if not was_running and os.WEXITSTATUS(status) != 0:
        raise RuntimeError(f"the work failed by itself (status {status})")
    reached = phase_file.read_text().splitlines()[-1] if phase_file.exists() else "before the first write"
    return Killed(round(after_s * 1000, 2), was_running, reached if was_running else "through")


def moments(duration_s: float, num_trials: int, seed: int) -> Iterator[float]:
    """Yield random moments, one in each of `num_trials` equal parts of the duration, in random order."""
    rng = random.Random(seed)
    parts = list(range(num_trials))
    rng.shuffle(parts)
    for part in parts:
        yield (part + rng.random()) / num_trials * duration_s


class Phases:
    """Notes which phase the work is in, in a file that outlives the process."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def enter(self, name: str) -> None:
        """Say that a phase begins."""
        with self.path.open("a") as file:
            file.write(f"{name}\n")

    def wrap(self, module: object, function: str, name: str, after: str = "") -> None:
        """Let every call of a module's function begin a phase, and another when it returns."""
        inner: Callable[..., object] = getattr(module, function)

        def noted(*arguments: object, **options: object) -> object:
            self.enter(name)
            result = inner(*arguments, **options)
            self.enter(after or f"after {name}")
            return result

        setattr(module, function, noted)


def _start(work: Callable[[], None]) -> int:
    child = os.fork()
    if child:
        return child
    try:
        work()
    except BaseException:  # noqa: BLE001 - a forked child must never return into its parent's code
        import traceback

        traceback.print_exc()
        os._exit(_FAILED)
    os._exit(0)
