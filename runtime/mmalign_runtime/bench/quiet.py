"""Was the machine quiet? A fixed piece of work, done again and again between what is measured, says so.

It takes the same time each time on a quiet machine. Where it does not, neither would anything else, and the figures
compare the neighbours. Linux also tells what other processes and the host took; both are looked at.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from time import perf_counter

import msgspec
import numpy as np

_STAT = Path("/proc/stat")
# A line of /proc/stat: user, nice, system, idle, iowait, irq, softirq, steal; guests are counted in user already.
_BUSY_STATES = (0, 1, 2, 5, 6)
_STEAL = 7

# Measured on a virtual machine of 2 cores. Quiet: spreads of 1.02 to 1.12, drifts to 1.08. A neighbour busy for 0.3 s
# of every 2.3: a spread of 1.59. One that never rests slows every reference alike (1.02), and took 32% of the
# processors: so both are looked at.
SPREAD_LIMIT = 1.15
DRIFT_LIMIT = 1.10
OTHERS_LIMIT = 0.05
STEAL_LIMIT = 0.02

_REFERENCE_S = 0.02
_BLOCK = bytes(1 << 20)
# Often enough to meet a neighbour of a second, seldom enough to cost a twentieth of the time.
_EVERY_S = 0.4
# Below this, a 90th percentile is the largest of a handful.
_MIN_REFERENCES = 20


class Ticks(msgspec.Struct, frozen=True):
    """Seconds since the machine started that some processors were busy, and that the host took from them."""

    busy_s: float
    steal_s: float


def read_ticks(cpus: Iterable[int], stat: Path = _STAT) -> Ticks | None:
    """Return the seconds of these processors, None where the system does not count them."""
    if not stat.is_file():
        return None
    wanted = {f"cpu{cpu}" for cpu in cpus}
    lines = [line.split() for line in stat.read_text().splitlines() if line.startswith("cpu")]
    counts = [[int(ticks) for ticks in fields[1:]] for fields in lines if fields[0] in wanted]
    if not any(map(any, counts)):  # some sandboxes show a file of zeros
        return None
    per_second = os.sysconf("SC_CLK_TCK")
    busy = sum(of_cpu[state] for of_cpu in counts for state in _BUSY_STATES)
    steal = sum(of_cpu[_STEAL] for of_cpu in counts)
    return Ticks(busy / per_second, steal / per_second)


def own_cpus() -> frozenset[int]:
    """Return the processors that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return frozenset(os.sched_getaffinity(0))
    return frozenset(range(os.cpu_count() or 1))


def own_busy_s() -> float:
    """Return the seconds of processors that this process and its ended children have used."""
    used = os.times()
    return used.user + used.system + used.children_user + used.children_system


class Quietness(msgspec.Struct, frozen=True, kw_only=True):
    """How quiet the machine was. `noise` says what was seen against which limit; empty on a quiet machine.

    `spread` is p90 over p50 of the references, `drift` the median of their last third over that of their first, either
    way up; `others_share` and `steal_share` (0..1, None where Linux is not) are shares of the processors' time that
    went to other processes and to the host's other guests.
    """

    num_references: int
    reference_ms: float
    spread: float
    drift: float
    others_share: float | None
    steal_share: float | None
    noise: tuple[str, ...]

    @property
    def is_quiet(self) -> bool:
        """Whether nothing was seen beyond its limit."""
        return not self.noise


class Watch:
    """Watches the machine from its creation to `verdict`. Create it just before what is measured."""

    def __init__(self, num_threads: int) -> None:
        """The reference keeps `num_threads` threads busy: with one alone, a neighbour would find another core."""
        self._num_threads = num_threads
        self._threads = ThreadPoolExecutor(num_threads, "bench-reference")
        self._num_blocks = self._calibrated()
        self._references_s: list[float] = []
        self._cpus = own_cpus()
        self._last = self._started = perf_counter()
        self._ticks, self._own_s = read_ticks(self._cpus), own_busy_s()

    def glance(self) -> None:
        """Do the reference work if the last time was a while ago. To be called between laps, never during one."""
        if perf_counter() - self._last >= _EVERY_S:
            self._measure()

    def verdict(self) -> Quietness:
        """End the watch and say how quiet it was."""
        while len(self._references_s) < _MIN_REFERENCES:
            self._measure()
        self._threads.shutdown()
        elapsed_s = perf_counter() - self._started
        others, steal = shares(
            self._ticks,
            read_ticks(self._cpus),
            own_s=own_busy_s() - self._own_s,
            capacity_s=elapsed_s * len(self._cpus),
        )
        return judge(self._references_s, others, steal)

    def _measure(self) -> None:
        self._references_s.append(self._work(self._num_blocks))
        self._last = perf_counter()

    def _work(self, num_blocks: int) -> float:
        started = perf_counter()
        list(self._threads.map(_hash_blocks, [num_blocks] * self._num_threads))
        return perf_counter() - started

    def _calibrated(self) -> int:
        self._work(2)  # starts the threads
        block_s = min(self._work(4) for _ in range(5)) / 4
        return max(1, round(_REFERENCE_S / block_s))


def judge(references_s: Sequence[float], others_share: float | None, steal_share: float | None) -> Quietness:
    """Say how quiet a machine was, from the durations of the reference work in the order they were taken."""
    p50, p90 = np.percentile(references_s, (50, 90))
    third = max(1, len(references_s) // 3)
    change = float(np.median(references_s[-third:]) / np.median(references_s[:third]))
    spread, drift = float(p90 / p50), max(change, 1 / change)
    noise = []
    if spread > SPREAD_LIMIT:
        noise.append(f"the same work took {spread:.2f}x its median in the slowest tenth (limit {SPREAD_LIMIT}x)")
    if drift > DRIFT_LIMIT:
        noise.append(f"the machine {'slowed down' if change > 1 else 'sped up'} by {drift:.2f}x (limit {DRIFT_LIMIT}x)")
    if others_share is not None and others_share > OTHERS_LIMIT:
        noise.append(f"other processes took {others_share:.0%} of the processors (limit {OTHERS_LIMIT:.0%})")
    if steal_share is not None and steal_share > STEAL_LIMIT:
        noise.append(f"the host took {steal_share:.0%} of the processors (limit {STEAL_LIMIT:.0%})")
    return Quietness(
        num_references=len(references_s),
        reference_ms=float(p50) * 1000,
        spread=spread,
        drift=drift,
        others_share=others_share,
        steal_share=steal_share,
        noise=tuple(noise),
    )


def shares(
    before: Ticks | None, after: Ticks | None, *, own_s: float, capacity_s: float
) -> tuple[float | None, float | None]:
    """Return the shares of the processors' time that other processes and the host took; None where it is not known."""
    if before is None or after is None:
        return None, None
    others_s = max(0.0, after.busy_s - before.busy_s - own_s)
    return others_s / capacity_s, (after.steal_s - before.steal_s) / capacity_s


def _hash_blocks(num_blocks: int) -> None:
    for _ in range(num_blocks):
        hashlib.sha256(_BLOCK).digest()  # lets go of the interpreter's lock
