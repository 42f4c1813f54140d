"""Callers that each wait for their answer before they ask again: what a fixed number of them gets out of an embedder.

Such callers slow down with the embedder and never wait in a queue: load tests of a service are for its own tools.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import count
from time import perf_counter

import msgspec

from mmalign_runtime.bench.laps import MIN_LAPS, Laps, Percentiles, percentiles
from mmalign_runtime.bench.workload import Workload
from mmalign_runtime.spec import Modality

# A lap is long enough for many answers and short enough for numbers of callers to be interleaved.
_MAX_LAP_S = 0.7


class ClosedLoop(msgspec.Struct, frozen=True, kw_only=True):
    """What callers get who ask for one item at a time, each waiting for the answer: latency, and answers a second."""

    kind: Modality
    num_callers: int
    latency: Percentiles
    items_per_s: float


class Asked(msgspec.Struct, frozen=True):
    """One stretch of asking: the seconds that each answer took, and the whole stretch."""

    latencies_s: tuple[float, ...]
    seconds: float


def time_closed_loop(work: Workload, num_callers: Sequence[int], laps: Laps) -> list[ClosedLoop]:
    """Interleave different numbers of callers; requests are of one item through `encode_image` or `encode_text`."""
    lap_s = min(_MAX_LAP_S, laps.seconds / len(num_callers) / (MIN_LAPS + 1))
    # Numbers go on from lap to lap: starting over would embed the first items most.
    runs = {callers: partial(ask_for, work.ask, callers, lap_s, count()) for callers in num_callers}
    return [_summary(work.kind, callers, found) for callers, found in laps.take(runs, num_warmup=1).items()]


def ask_for(
    ask: Callable[[int], object],
    num_callers: int,
    seconds: float,
    numbers: Iterator[int],
    now: Callable[[], float] = perf_counter,
) -> Asked:
    """Let callers ask until the time is over, each for at least one answer.

    A request takes the next of `numbers`, an itertools.count: next() of it is one step, so that threads may share it.
    """
    started = now()

    def caller() -> list[float]:
        latencies_s: list[float] = []
        while not latencies_s or now() - started < seconds:
            asked = now()
            ask(next(numbers))
            latencies_s.append(now() - asked)
        return latencies_s

    with ThreadPoolExecutor(num_callers, "bench-caller") as threads:
        callers = [threads.submit(caller) for _ in range(num_callers)]
    latencies_s = tuple(latency for found in callers for latency in found.result())
    return Asked(latencies_s, now() - started)


def _summary(kind: Modality, num_callers: int, laps: Sequence[Asked]) -> ClosedLoop:
    latencies_s = [latency for lap in laps for latency in lap.latencies_s]
    return ClosedLoop(
        kind=kind,
        num_callers=num_callers,
        latency=percentiles(latencies_s),
        items_per_s=len(latencies_s) / sum(lap.seconds for lap in laps),
    )
