"""What `mmalign bench` prints on a terminal of 80 columns: conclusions first, then the figures that they rest on."""

from __future__ import annotations

from statistics import mean
from typing import TYPE_CHECKING

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Table

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from mmalign_runtime.bench.cold_start import ColdStart
    from mmalign_runtime.bench.comparison import Candidate, Comparison
    from mmalign_runtime.bench.laps import Percentiles
    from mmalign_runtime.bench.quiet import Quietness
    from mmalign_runtime.bench.run import BenchReport
    from mmalign_runtime.clipping import ClippedTensor
    from mmalign_runtime.profile import Goal
    from mmalign_runtime.spec import Modality

_MIB = 2**20
_LEFT = ("kind", "stage", "candidate")  # columns of words; all others are of numbers
# A percentile has a meaning when at least one sample lies beyond it.
_P90_SAMPLES, _P99_SAMPLES = 10, 100
_MAX_SKIPPED = 3
_NUM_SHOWN = 10
_ADVICE = {
    "latency": "one item at a time, milliseconds (p50)",
    "throughput": "items a second, at the best batch size tried",
}


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


def print_report(report: BenchReport) -> None:
    """Print the environment card, what was found in sentences, and the figures of every part that was measured."""
    console = Console(highlight=False)
    _print_card(report, console)
    _print_conclusions(report, console)
    if report.timings:
        _print_table(console, "stages, one after the other: milliseconds a batch", _stages(report))
    if report.bulk:
        _print_table(console, "in bulk: the public path, in batches", _bulk(report))
    if report.closed_loop:
        _print_table(console, "closed loop: callers that wait for their item, milliseconds", _closed_loop(report))
    if report.cold_starts:
        _print_table(console, "cold start: milliseconds to the first vector of one tower", _cold_starts(report))


def _print_card(report: BenchReport, console: Console) -> None:
    card, runtime = report.environment, report.environment.runtime
    version = runtime.engine_version or card.onnxruntime
    console.print(
        f"{card.date}  {escape(card.cpu)}, {runtime.num_threads} threads, {runtime.engine} {version} "
        f"{runtime.provider} {runtime.variant_id}, python {card.python}, mmalign-runtime {card.mmalign_runtime}; "
        f"{report.num_images} images, {report.num_texts} texts, {report.seconds:.0f} s",
        style="dim",
    )


def _print_conclusions(report: BenchReport, console: Console) -> None:
    if report.quietness is not None:
        console.print(verdict(report.quietness), style="green" if report.quietness.is_quiet else "bold yellow")
    grid = Table.grid(padding=(0, 2))
    before = ""
    for subject, sentence in conclusions(report):
        grid.add_row(subject if subject != before else "", sentence)
        before = subject
    console.print(grid)
    if report.skipped:
        console.print(f"[yellow]{len(report.skipped)} items left out, which cannot be embedded:[/]")
        for item in report.skipped[:_MAX_SKIPPED]:
            console.print(f"  {escape(f'{item.source}, {item.stage}: {item.reason}')}")
    console.print()


def _stages(report: BenchReport) -> Table:
    table = _table("kind", "stage", "batch", "p50", "p90", "p99", "items/s", "batches")
    for row in report.timings:
        times = _times(row.num_batches, row.p50_ms, row.p90_ms, row.p99_ms)
        figures = (str(row.batch_size), *times, f"{row.items_per_s:.1f}", str(row.num_batches))
        table.add_row(row.kind, row.stage, *figures, end_section=row.stage == "total")
    return table


def _bulk(report: BenchReport) -> Table:
    table = _table("kind", "batch", "items/s", "items", "laps")
    for row in report.bulk:
        table.add_row(row.kind, str(row.batch_size), f"{row.items_per_s:.1f}", str(row.num_items), str(row.num_laps))
    return table


def _closed_loop(report: BenchReport) -> Table:
    table = _table("kind", "callers", "p50", "p90", "p99", "items/s", "items")
    for row in report.closed_loop:
        figures = (*_percentiles(row.latency), f"{row.items_per_s:.1f}", str(row.latency.num_samples))
        table.add_row(row.kind, str(row.num_callers), *figures)
    return table


def _cold_starts(report: BenchReport) -> Table:
    table = _table("kind", "total", "process", "import", "open", "load", "first run", "MiB", "starts")
    for row in report.cold_starts:
        stages = (row.total_ms, row.process_ms, row.import_ms, row.open_ms, row.load_ms, row.first_run_ms)
        held = "" if row.resident_bytes is None else f"{row.resident_bytes / _MIB:.0f}"
        table.add_row(row.kind, *(f"{ms:.0f}" for ms in stages), held, str(row.num_starts))
    return table


def _print_table(console: Console, title: str, table: Table) -> None:
    console.print(f"[bold]{title}[/]")
    console.print(table)


def _table(*columns: str) -> Table:
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for column in columns:
        table.add_column(column, justify="left" if column in _LEFT else "right")
    return table


def _percentiles(found: Percentiles) -> tuple[str, str, str]:
    return _times(found.num_samples, found.p50_ms, found.p90_ms, found.p99_ms)


def _times(num_samples: int, p50_ms: float, p90_ms: float, p99_ms: float) -> tuple[str, str, str]:
    p90 = f"{p90_ms:.2f}" if num_samples >= _P90_SAMPLES else "-"
    return f"{p50_ms:.2f}", p90, f"{p99_ms:.2f}" if num_samples >= _P99_SAMPLES else "-"


def print_clipping(found: dict[Modality, tuple[ClippedTensor, ...]]) -> None:
    """Print each tower's shares, and whether they are above calibration's and evaluation's."""
    console = Console(highlight=False)
    for tower, tensors in found.items():
        console.print(_verdict(tower, tensors), soft_wrap=True)
        table = Table("activation", "range", title=f"{tower}, share of values clipped", title_justify="left")
        for column in ("seen", "calibration", "evaluation"):
            table.add_column(column, justify="right")
        for tensor in sorted(tensors, key=lambda tensor: -_seen(tensor))[:_NUM_SHOWN]:
            shares = (f"{share:.4%}" for share in (_seen(tensor), tensor.calibration, tensor.evaluation))
            table.add_row(tensor.name, f"{tensor.low:.3g} .. {tensor.high:.3g}", *shares)
        console.print(table)


def _verdict(tower: Modality, tensors: Sequence[ClippedTensor]) -> str:
    seen = mean(_seen(tensor) for tensor in tensors)
    known = max(mean(tensor.calibration for tensor in tensors), mean(tensor.evaluation for tensor in tensors))
    if seen <= known:
        return f"{tower}: {seen:.4%} of rounded values are clipped, no more than when it was quantized ({known:.4%})."
    return (
        f"{tower}: {seen:.4%} of rounded values are clipped, more than when it was quantized ({known:.4%}). These "
        "items are unlike those of its calibration: compare their vectors with float32, and quantize again with such."
    )


def _seen(tensor: ClippedTensor) -> float:
    return tensor.seen or 0.0


def print_comparison(found: Comparison) -> None:
    """Print what to take and what it gains, then everyone's figures, then who was refused and why."""
    console = Console(highlight=False)
    card = found.environment
    words = f"{card.date}  {card.cpu}, mmalign-runtime {card.mmalign_runtime}, {found.seconds:.0f} s"
    console.print(escape(words), style="dim")
    console.print(verdict(found.quietness), style="green" if found.quietness.is_quiet else "bold yellow")
    console.print(escape(_advice(found)), style="bold")
    if found.skipped:
        console.print(f"[yellow]{len(found.skipped)} items left out, which cannot be embedded[/]")
    console.print()
    console.print(f"[bold]for {found.goal}: {_ADVICE[found.goal]}[/]")
    console.print(_compared(found))
    for refused in found.refused:
        console.print(f"[red]refused[/]: {escape(f'{refused.config}: {refused.reason}')}")


def _advice(found: Comparison) -> str:
    best = None if found.recommended is None else found.of(found.recommended)
    if best is None:
        if not found.quietness.is_quiet:
            return "Nothing is recommended on a noisy machine (--even-if-noisy recommends all the same)."
        return "Nothing is recommended: no candidate passed `mmalign verify` here."
    said = f"For {found.goal}: {best.config}"
    if found.goal == "throughput":
        said += ", " + ", ".join(f"batches of {row.batch_size} {row.kind}s" for row in best.best(found.goal))
    said += "."
    standing = found.of(found.default)
    if best.config == found.default:
        said += " That is the default."
    elif standing is not None:
        said += f" {best.score(found.goal) / standing.score(found.goal):.2f}x as fast as the default ({found.default})."
    if best.config.allow_spinning:
        said += " Its threads wait busily: for a machine that does nothing else."
    return said


def _compared(found: Comparison) -> Table:
    kinds = list(dict.fromkeys(row.kind for each in found.candidates for row in each.measured))
    of_batch = " (batch)" if found.goal == "throughput" else ""
    table = _table("candidate", *(f"{kind}s{of_batch}" for kind in kinds), "speed")
    table.columns[0].no_wrap = True
    best = max((each.score(found.goal) for each in found.candidates), default=1.0)
    for each in found.candidates:
        speed = f"{each.score(found.goal) / best:.2f}x"
        style = "bold" if each.config == found.recommended else None
        table.add_row(str(each.config), *_figures(each, found.goal), speed, style=style)
    return table


def _figures(each: Candidate, goal: Goal) -> list[str]:
    if goal == "latency":
        return [f"{row.p50_ms:.2f}" for row in each.best(goal)]
    return [f"{row.items_per_s:.0f} ({row.batch_size})" for row in each.best(goal)]
