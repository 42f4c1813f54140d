"""Everything a measurement found. Parts that were not measured are empty, as they are in reports of older versions."""

from __future__ import annotations

import msgspec

from mmalign_runtime.bench.bulk import BulkTiming
from mmalign_runtime.bench.closed_loop import ClosedLoop
from mmalign_runtime.bench.cold_start import ColdStart
from mmalign_runtime.bench.environment import Environment
from mmalign_runtime.bench.memory import Memory
from mmalign_runtime.bench.open_loop import OpenLoop
from mmalign_runtime.bench.quiet import Quietness
from mmalign_runtime.bench.stages import StageTiming
from mmalign_runtime.bench.workload import Skipped


class BenchReport(msgspec.Struct, frozen=True, kw_only=True):
    """A measurement: its environment, how many different items it went through, and what each part found."""

    environment: Environment
    num_images: int
    num_texts: int
    timings: tuple[StageTiming, ...]
    bulk: tuple[BulkTiming, ...] = ()
    closed_loop: tuple[ClosedLoop, ...] = ()
    open_loop: tuple[OpenLoop, ...] = ()
    cold_starts: tuple[ColdStart, ...] = ()
    memory: Memory | None = None
    quietness: Quietness | None = None
    skipped: tuple[Skipped, ...] = ()
    seconds: float = 0.0
