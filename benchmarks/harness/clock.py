"""Times a call that takes micro- to milliseconds: repeated for a while, its fastest and its median."""

from __future__ import annotations

from collections.abc import Callable
from time import perf_counter

import msgspec
import numpy as np

_NUM_WARMUP = 3
_MIN_CALLS = 5


class Laps(msgspec.Struct, frozen=True):
    """Seconds of a call: the fastest, which is what a peak is made of, and the median."""

    best_s: float
    median_s: float


def laps(call: Callable[[], object], seconds: float) -> Laps:
    """Call again and again for `seconds`, at least a few times, after a warm-up."""
    for _ in range(_NUM_WARMUP):
        call()
    found: list[float] = []
    end = perf_counter() + seconds
    while perf_counter() < end or len(found) < _MIN_CALLS:
        start = perf_counter()
        call()
        found.append(perf_counter() - start)
    return Laps(min(found), float(np.median(found)))
