"""Interleaved laps: a machine that slows down or warms up does so for all candidates alike.

With seconds to spend, the candidate that had the least time so far goes next: a batch of 1 gets as much time as a batch
of 32, and so many more laps.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from time import perf_counter
from typing import TypeVar

import msgspec
import numpy as np

Key = TypeVar("Key")
Lap = TypeVar("Lap")

# The first runs of a shape plan memory and fill caches: they are thrown away.
NUM_WARMUP = 2
# What every candidate gets, however slow: below three there is no middle.
MIN_LAPS = 3


class Laps(msgspec.Struct, frozen=True, kw_only=True):
    """How long a comparison takes: `num_rounds` laps of each candidate, or `seconds` for all of them together.

    `between` runs before every lap that counts.
    """

    seconds: float = 0.0
    num_rounds: int | None = None
    between: Callable[[], object] = lambda: None
    now: Callable[[], float] = perf_counter

    def take(self, candidates: Mapping[Key, Callable[[], Lap]], num_warmup: int = NUM_WARMUP) -> dict[Key, list[Lap]]:
        """Return the laps of each candidate, at least MIN_LAPS where seconds decide."""
        for run in (*candidates.values(),) * num_warmup:
            run()
        laps: dict[Key, list[Lap]] = {key: [] for key in candidates}
        spent_s = dict.fromkeys(candidates, 0.0)
        while waiting := self._waiting({key: len(of_key) for key, of_key in laps.items()}, spent_s):
            least = {key: len(laps[key]) for key in waiting} if self.num_rounds is not None else spent_s
            key = min(waiting, key=least.__getitem__)
            self.between()
            started = self.now()
            laps[key].append(candidates[key]())
            spent_s[key] += self.now() - started
        return laps

    def _waiting(self, num_laps: Mapping[Key, int], spent_s: Mapping[Key, float]) -> list[Key]:
        if self.num_rounds is None and sum(spent_s.values()) < self.seconds:
            return list(num_laps)
        wanted = MIN_LAPS if self.num_rounds is None else self.num_rounds
        return [key for key, number in num_laps.items() if number < wanted]


class Percentiles(msgspec.Struct, frozen=True, kw_only=True):
    """Of how many samples, and their percentiles in milliseconds. Below 100 samples p99 says little but the largest."""

    num_samples: int
    p50_ms: float
    p90_ms: float
    p99_ms: float


def percentiles(seconds: Sequence[float]) -> Percentiles:
    """Return the percentiles of at least one duration, interpolated between neighbours."""
    p50, p90, p99 = np.percentile(np.array(seconds) * 1000, (50, 90, 99))
    return Percentiles(num_samples=len(seconds), p50_ms=float(p50), p90_ms=float(p90), p99_ms=float(p99))
