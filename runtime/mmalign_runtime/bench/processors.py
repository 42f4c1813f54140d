"""What the processors did meanwhile, as Linux counts it: for this process, for others, and stolen by the host."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

import msgspec

_STAT = Path("/proc/stat")
# A line of /proc/stat: user, nice, system, idle, iowait, irq, softirq, steal; guests are counted in user already.
_BUSY_STATES = (0, 1, 2, 5, 6)
_STEAL = 7


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
