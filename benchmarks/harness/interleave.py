"""Interleaving: in each round every one of those compared has its turn, in an order drawn anew.

What slows a machine down for a while slows all of them alike, and calls of one round can be paired.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from time import perf_counter
from typing import TypeVar

Name = TypeVar("Name")


def timed(call: Callable[[], object]) -> float:
    """Return the seconds that a call takes."""
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
