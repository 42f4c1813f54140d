"""A bench report on a terminal of 80 columns: conclusions first, then a table for each part."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from mmalign_runtime.bench import BenchReport
    from mmalign_runtime.bench.laps import Percentiles

_MIB = 2**20
# A percentile has a meaning when at least one sample lies beyond it.
_P90_SAMPLES, _P99_SAMPLES = 10, 100
_MAX_SKIPPED = 3


def print_report(report: BenchReport) -> None:
    """Print the environment card, what was found in sentences, and the figures of every part that was measured."""
    from rich.console import Console

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
    from rich.markup import escape

    card, runtime = report.environment, report.environment.runtime
    version = runtime.engine_version or card.onnxruntime
    console.print(
        f"{card.date}  {escape(card.cpu)}, {runtime.num_threads} threads, {runtime.engine} {version} "
        f"{runtime.provider} {runtime.variant_id}, python {card.python}, mmalign-runtime {card.mmalign_runtime}; "
        f"{report.num_images} images, {report.num_texts} texts, {report.seconds:.0f} s",
        style="dim",
    )


def _print_conclusions(report: BenchReport, console: Console) -> None:
    from rich.markup import escape
    from rich.table import Table

    from mmalign_runtime.bench.conclusions import conclusions, verdict

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
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for column in columns:
        table.add_column(column, justify="left" if column in ("kind", "stage") else "right")
    return table


def _percentiles(found: Percentiles) -> tuple[str, str, str]:
    return _times(found.num_samples, found.p50_ms, found.p90_ms, found.p99_ms)


def _times(num_samples: int, p50_ms: float, p90_ms: float, p99_ms: float) -> tuple[str, str, str]:
    p90 = f"{p90_ms:.2f}" if num_samples >= _P90_SAMPLES else "-"
    return f"{p50_ms:.2f}", p90, f"{p99_ms:.2f}" if num_samples >= _P99_SAMPLES else "-"
