"""Timing in turns: in each round every one of those compared has its turn, in an order drawn anew.

What slows a machine down for a while slows all of them alike, and calls of one round can be paired.
"""

import random
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from time import perf_counter
from types import MappingProxyType
from typing import TypeVar

import msgspec
import numpy as np
from numpy.typing import ArrayLike, NDArray

Name = TypeVar("Name")
Vectors = NDArray[np.float32]
Way = Callable[[], Vectors]

_LEAST_COSINE = 0.9999
_MIN_ROUNDS = 5


class Spread(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A median and how far the middle four fifths reach."""

    p10: float
    p50: float
    p90: float


def timed(call: Callable[[], object]) -> float:
    start = perf_counter()
    call()
    return perf_counter() - start


def interleaved(
    calls: Mapping[Name, Callable[[], float]], num_rounds: int, rng: random.Random, *, num_untimed: int = 0
) -> dict[Name, list[float]]:
    """Return what every call gave, round by round (seconds, as a rule); the first `num_untimed` rounds are left out."""
    found: dict[Name, list[float]] = {name: [] for name in calls}
    for number in range(num_untimed + num_rounds):
        for name in rng.sample(list(calls), len(calls)):
            value = calls[name]()
            if number >= num_untimed:
                found[name].append(value)
    return found


def laps_of(
    ways: Mapping[str, Way], seconds: float, least_cosines: Mapping[str, float] = MappingProxyType({})
) -> dict[str, list[float]]:
    """Return the seconds of every way to unit vectors, round by round, for about so many seconds in all.

    Vectors are compared with those of the first way, before and after, since the first run of a shape and later ones
    may take other paths: with a cosine of at least 0.9999, or what `least_cosines` says for the way. Raises SystemExit
    for others.
    """
    first = next(iter(ways.values()))()
    _check(first, ways, least_cosines)
    timers = {name: partial(timed, way) for name, way in ways.items()}
    num_rounds = max(_MIN_ROUNDS, round(seconds / sum(timer() for timer in timers.values())))
    laps = interleaved(timers, num_rounds, random.Random(0), num_untimed=1)
    _check(first, ways, least_cosines)
    return laps


def _check(first: Vectors, ways: Mapping[str, Way], least_cosines: Mapping[str, float]) -> None:
    for name, way in ways.items():
        lowest = float((first * way()).sum(axis=1).min())
        if not lowest > least_cosines.get(name, _LEAST_COSINE):
            raise SystemExit(f"{name} gives other vectors: lowest cosine {lowest:.5f}. Its speed would mean nothing.")


def spread(values: ArrayLike) -> Spread:
    return Spread(*(float(value) for value in np.percentile(np.asarray(values), (10, 50, 90))))


def median_ms(seconds: Sequence[float]) -> float:
    """Return the median in milliseconds, to the microsecond."""
    return round(float(np.median(seconds)) * 1000, 3)


def paired_speedups(baseline_s: Sequence[float], engine_s: Sequence[float]) -> NDArray[np.float64]:
    """Return baseline time by engine time, turn by turn.

    Paired, since what slows a machine down for a second slows both calls of one turn; two medians taken apart keep it.
    Raises ValueError when the turns do not match.
    """
    if len(baseline_s) != len(engine_s) or not baseline_s:
        raise ValueError(f"seen {len(baseline_s)} and {len(engine_s)} turns, expected as many of both, at least one.")
    return np.array(baseline_s, np.float64) / np.array(engine_s, np.float64)
