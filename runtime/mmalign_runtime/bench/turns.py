"""Candidates take turns, so that a machine that slows down or warms up does so for all of them alike.

With seconds to spend, whoever had the least time so far goes next: a batch of 1 gets as much time as a batch of 32, and
so many more laps.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from time import perf_counter
from typing import TypeVar

import msgspec

Key = TypeVar("Key")
Lap = TypeVar("Lap")

# The first runs of a shape plan memory and fill caches: they are thrown away.
NUM_WARMUP = 2
# What every candidate gets, however slow: below three there is no middle.
MIN_LAPS = 3


class Length(msgspec.Struct, frozen=True, kw_only=True):
    """How long a comparison takes: `num_rounds` laps for each candidate, or `seconds` for all of them together."""

    seconds: float = 0.0
    num_rounds: int | None = None


def take_turns(
    candidates: Mapping[Key, Callable[[], Lap]],
    length: Length,
    *,
    between: Callable[[], object] = lambda: None,
    num_warmup: int = NUM_WARMUP,
    now: Callable[[], float] = perf_counter,
) -> dict[Key, list[Lap]]:
    """Return the laps of each candidate, at least MIN_LAPS where seconds decide. `between` runs between laps."""
    laps: dict[Key, list[Lap]] = {key: [] for key in candidates}
    for _ in range(num_warmup):
        for run in candidates.values():
            run()
    if length.num_rounds is not None:
        for _ in range(length.num_rounds):
            for key, run in candidates.items():
                between()
                laps[key].append(run())
        return laps
    spent_s = dict.fromkeys(candidates, 0.0)
    while waiting := _waiting(laps, spent_s, length.seconds):
        key = min(waiting, key=spent_s.__getitem__)
        between()
        started = now()
        laps[key].append(candidates[key]())
        spent_s[key] += now() - started
    return laps


def _waiting(laps: Mapping[Key, list[Lap]], spent_s: Mapping[Key, float], seconds: float) -> list[Key]:
    if sum(spent_s.values()) < seconds:
        return list(laps)
    return [key for key, of_key in laps.items() if len(of_key) < MIN_LAPS]
