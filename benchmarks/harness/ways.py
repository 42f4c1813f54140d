"""Ways from items to unit vectors, timed in turns; one that gives other vectors than the first is refused."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from functools import partial
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from benchmarks.harness.interleave import interleaved, timed

Vectors = NDArray[np.float32]
Way = Callable[[], Vectors]

_LEAST_COSINE = 0.9999
_MIN_ROUNDS = 5


def laps_of(
    ways: Mapping[str, Way], seconds: float, least_cosines: Mapping[str, float] = MappingProxyType({})
) -> dict[str, list[float]]:
    """Return the seconds of every way, round by round, for about so many seconds in all.

    Vectors are compared before and after, since the first run of a shape and later ones may take other paths: with a
    cosine of at least 0.9999, or what `least_cosines` says for the way. Raises SystemExit for others.
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
