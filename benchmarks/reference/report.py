"""The report: what every engine took on every batch, and how much faster than the baseline it was."""

from __future__ import annotations

import re
from collections.abc import Sequence

import msgspec
import numpy as np

from benchmarks.harness.environment import Environment
from benchmarks.harness.markdown import table
from benchmarks.harness.statistics import paired_speedups
from benchmarks.reference.interleave import Laps
from mmalign_runtime.spec import Modality


class EngineTiming(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One engine on one batch: milliseconds a batch, items a second, and speed relative to the baseline.

    `speedup` is the median over turns of baseline time by engine time, `speedup_p10` and `speedup_p90` say how far the
    turns agreed. `max_abs_difference` is from eager PyTorch's vectors.
    """

    tower: Modality
    batch_size: int
    input_shape: tuple[int, ...]
    engine: str
    num_calls: int
    p50_ms: float
    p90_ms: float
    p99_ms: float
    items_per_s: float
    speedup: float
    speedup_p10: float
    speedup_p90: float
    max_abs_difference: float


class ReferenceReport(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One interleaved run."""

    environment: Environment
    baseline: str
    num_rounds: int
    timings: tuple[EngineTiming, ...]


def engine_timings(laps: Sequence[Laps], baseline: str) -> tuple[EngineTiming, ...]:
    """Return a timing for each batch and engine, in the order they were given in."""
    return tuple(_timing(lap, engine, baseline) for lap in laps for engine in lap.seconds)


def table_of(report: ReferenceReport) -> str:
    """Return the report as a table: milliseconds a batch, items a second, speed relative to the baseline, parity."""
    head = ("tower", "batch", "engine", "calls", "p50", "p90", "p99", "items/s", "speed", "p10 to p90", "max abs")
    return table(head, [_cells(timing) for timing in report.timings])


def _cells(row: EngineTiming) -> list[str]:
    times = [f"{ms:.1f}" for ms in (row.p50_ms, row.p90_ms, row.p99_ms)]
    speed = [f"{row.speedup:.2f}x", f"{row.speedup_p10:.2f} to {row.speedup_p90:.2f}"]
    cells = [row.tower, "x".join(map(str, row.input_shape)), row.engine, str(row.num_calls), *times]
    return [*cells, f"{row.items_per_s:.1f}", *speed, f"{row.max_abs_difference:.0e}"]


def cpu_slug(cpu: str) -> str:
    """Return a processor's name as a file name: `Intel(R) Xeon(R) Processor` -> `intel-xeon-processor`."""
    without_marks = re.sub(r"\((?:r|tm)\)", " ", cpu.lower())
    return re.sub(r"[^a-z0-9.]+", "-", without_marks).strip("-.") or "unknown-cpu"


def _timing(lap: Laps, engine: str, baseline: str) -> EngineTiming:
    seconds = np.array(lap.seconds[engine])
    p50, p90, p99 = np.percentile(seconds * 1000, (50, 90, 99))
    speedup_p10, speedup, speedup_p90 = np.percentile(
        paired_speedups(lap.seconds[baseline], lap.seconds[engine]), (10, 50, 90)
    )
    return EngineTiming(
        tower=lap.batch.tower,
        batch_size=lap.batch.size,
        input_shape=lap.batch.input_shape,
        engine=engine,
        num_calls=len(seconds),
        p50_ms=_rounded(p50),
        p90_ms=_rounded(p90),
        p99_ms=_rounded(p99),
        items_per_s=_rounded(lap.batch.size * len(seconds) / seconds.sum()),
        speedup=_rounded(speedup),
        speedup_p10=_rounded(speedup_p10),
        speedup_p90=_rounded(speedup_p90),
        max_abs_difference=lap.max_abs_differences[engine],
    )


def _rounded(value: float) -> float:
    """Keep what was measured: no clock and no machine repeats itself to more than three digits after the point."""
    return round(float(value), 3)
