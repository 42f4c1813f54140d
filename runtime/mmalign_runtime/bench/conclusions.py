"""What a measurement says, in sentences: the part of a report that is read first."""

from __future__ import annotations

from collections.abc import Iterator

from mmalign_runtime.bench.cold_start import ColdStart
from mmalign_runtime.bench.quiet import Quietness
from mmalign_runtime.bench.run import BenchReport
from mmalign_runtime.spec import Modality

_MIB = 2**20


def verdict(quietness: Quietness) -> str:
    """Say whether the figures can be trusted, and why not."""
    if quietness.is_quiet:
        return (
            f"Quiet machine: the same work took {quietness.spread:.2f}x its median in the slowest tenth of "
            f"{quietness.num_references} tries."
        )
    seen = "; ".join(quietness.noise)
    return f"Noisy machine: {seen}. Compare these figures with no others; stop what else runs here and measure again."


def conclusions(report: BenchReport) -> Iterator[tuple[str, str]]:
    """Yield sentences about each kind of items and about the process, each with what it is about."""
    kinds: tuple[Modality, ...] = ("image", "text")
    yield from ((f"{kind}s", sentence) for kind in kinds for sentence in _of_kind(report, kind))
    if report.memory is not None:
        loaded = report.memory.loaded_bytes
        held = "" if loaded is None else f"{loaded / _MIB:.0f} MiB with the towers loaded, "
        yield "memory", f"{held}{report.memory.peak_bytes / _MIB:.0f} MiB at its peak"


def _of_kind(report: BenchReport, kind: Modality) -> Iterator[str]:
    for row in report.closed_loop:
        if row.kind == kind and row.num_callers == 1:
            yield f"one at a time: {row.latency.p50_ms:.1f} ms (p50), {row.latency.p99_ms:.1f} ms (p99)"
    if shares := _shares(report, kind):
        yield shares
    if bulk := [row for row in report.bulk if row.kind == kind]:
        best = max(bulk, key=lambda row: row.items_per_s)
        yield f"in bulk: {best.items_per_s:.0f}/s, best with batches of {best.batch_size}"
    for start in report.cold_starts:
        if start.kind == kind:
            yield f"cold start: {start.total_ms / 1000:.2f} s to the first vector, most of it {_longest(start)}"


def _shares(report: BenchReport, kind: Modality) -> str:
    """Return where the mean time of the smallest batch goes, the longest first."""
    timings = [row for row in report.timings if row.kind == kind]
    if not timings:
        return ""
    smallest = min(row.batch_size for row in timings)
    batch_s = {row.stage: smallest / row.items_per_s for row in timings if row.batch_size == smallest}
    total_s = batch_s.pop("total")
    longest = sorted(batch_s, key=lambda stage: -batch_s[stage])
    words = ", ".join(f"{batch_s[stage] / total_s:.0%} {stage}" for stage in longest)
    return f"where the time goes (mean of {1000 * total_s / smallest:.1f} ms an item, batches of {smallest}): {words}"


def _longest(start: ColdStart) -> str:
    stages = {
        "the interpreter": start.process_ms,
        "imports": start.import_ms,
        "opening the bundle": start.open_ms,
        "loading the tower": start.load_ms,
        "the first run": start.first_run_ms,
    }
    name = max(stages, key=stages.__getitem__)
    return f"{name} ({stages[name] / 1000:.2f} s)"
