"""The card a measurement carries: what ran, on what, with what else going on, and when."""

import os
import platform
import resource
import time
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Generic, TypeVar

import msgspec

from benchmarks.harness.command import command_line
from benchmarks.harness.results import write_result
from mmalign_runtime.engine.processor import cpu_name
from mmalign_runtime.engine.threads import available_threads

Case = TypeVar("Case")

_CPU_INFO = Path("/proc/cpuinfo")
_STAT = Path("/proc/stat")
# What decides how fast float32, bfloat16 and int8 matrix products are, on x86 and on Arm.
_TELLING_FLAGS = (
    *("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "avx512_fp16", "avx_vnni", "amx_tile", "amx_bf16", "amx_int8"),
    *("asimd", "asimddp", "sve", "sve2", "i8mm", "bf16"),
)
_PACKAGES = (
    *("mmalign-runtime", "numpy", "pillow", "onnxruntime"),
    *("onnx", "onnxscript", "torch", "torchvision", "transformers"),
)
# /proc/stat's first line: user, nice, system, idle, iowait, irq, softirq, steal; guests are counted in user already.
_NUM_STATES = 8
_IDLE_STATES = (3, 4)


class Card(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Machine, versions, date and command of a measurement."""

    date: str
    command: str
    cpu: str
    platform: str
    python: str
    versions: dict[str, str]


class Environment(Card, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """And how quiet the machine was: `others_cpu_share` (0..1) went to other processes while measuring.

    The load average counts the benchmark itself as well, so on its own it cannot tell a quiet machine from a busy one.
    """

    cpu_flags: tuple[str, ...]
    num_cpus: int
    num_threads: int
    load_average_start: float
    load_average_end: float
    others_cpu_share: float | None


class Measurement(msgspec.Struct, Generic[Case], frozen=True, forbid_unknown_fields=True):
    """What `Watch.write` wrote of some cases."""

    environment: Environment
    cases: tuple[Case, ...]


def card() -> Card:
    """Describe the machine at hand and the command at work."""
    return Card(
        date=datetime.now(UTC).isoformat(timespec="seconds"),
        command=command_line(),
        cpu=cpu_name(),
        platform=platform.platform(),
        python=platform.python_version(),
        versions={name: version(name) for name in _PACKAGES},
    )


class Watch:
    """Watches the machine from its creation to `card`. Create it before the work that is to be measured."""

    def __init__(self, num_threads: int | None = None) -> None:
        self._num_threads = available_threads() if num_threads is None else num_threads
        self._load_average = os.getloadavg()[0]
        self.restart()

    def restart(self, workers_cpu_s: float = 0.0) -> None:
        """Count other processes' CPU time from here on: before the first timed call."""
        self._start_s = time.monotonic()
        self._busy_s, self._own_s = busy_cpu_s(), _own_cpu_s() + workers_cpu_s

    def card(self, workers_cpu_s: float = 0.0) -> Environment:
        """Describe machine, versions and load; `workers_cpu_s` is what live children, not waited for, have used."""
        return Environment(
            **msgspec.structs.asdict(card()),
            cpu_flags=cpu_flags(),
            num_cpus=os.cpu_count() or 1,
            num_threads=self._num_threads,
            load_average_start=round(self._load_average, 2),
            load_average_end=round(os.getloadavg()[0], 2),
            others_cpu_share=self._others_cpu_share(workers_cpu_s),
        )

    def write(self, path: Path, **found: object) -> None:
        """Write what was found, behind the card as its `environment`."""
        write_result({"environment": self.card()} | found, path)

    def _others_cpu_share(self, workers_cpu_s: float) -> float | None:
        busy_s = busy_cpu_s()
        if busy_s is None or self._busy_s is None:
            return None
        others_s = (busy_s - self._busy_s) - (_own_cpu_s() + workers_cpu_s - self._own_s)
        capacity_s = (time.monotonic() - self._start_s) * (os.cpu_count() or 1)
        return round(max(0.0, others_s / capacity_s), 3)


def cpu_flags(cpu_info: Path = _CPU_INFO) -> tuple[str, ...]:
    """Return those instruction sets of this processor that decide how fast towers are; none where Linux is not."""
    lines = cpu_info.read_text().splitlines() if cpu_info.is_file() else []
    fields = [line.partition(":") for line in lines]
    listed = next((value.split() for name, _, value in fields if name.strip() in ("flags", "Features")), [])
    return tuple(flag for flag in _TELLING_FLAGS if flag in listed)


def busy_cpu_s(stat: Path = _STAT) -> float | None:
    """Return the CPU time that all processes (and neighbours of this virtual machine) have used; None without Linux."""
    if not stat.is_file():
        return None
    ticks = [int(field) for field in stat.read_text().splitlines()[0].split()[1 : 1 + _NUM_STATES]]
    busy = sum(count for state, count in enumerate(ticks) if state not in _IDLE_STATES)
    return busy / os.sysconf("SC_CLK_TCK")


def _own_cpu_s() -> float:
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)
