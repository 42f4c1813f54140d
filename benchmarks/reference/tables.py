"""A report on the terminal: the environment card, then a line an engine."""

from __future__ import annotations

from itertools import pairwise

from rich.console import Console
from rich.table import Table

from benchmarks.harness.environment import Environment
from benchmarks.reference.report import EngineTiming, ReferenceReport


def print_environment(card: Environment, console: Console) -> None:
    """Print where and when the figures were taken, and how quiet it was."""
    versions = ", ".join(f"{name} {number}" for name, number in card.versions.items())
    others = "unknown" if card.others_cpu_share is None else f"{card.others_cpu_share:.1%}"
    lines = (
        f"{card.date}  {card.command}",
        f"{card.cpu}, {card.num_cpus} CPUs, {card.num_threads} threads for each engine, {card.platform}",
        f"instruction sets: {' '.join(card.cpu_flags) or 'unknown'}",
        f"python {card.python}, {versions}",
        f"load average {card.load_average_start} at the start, {card.load_average_end} at the end; "
        f"CPU time taken by other processes meanwhile: {others}",
    )
    for line in lines:
        console.print(line, soft_wrap=True)


def print_timings(report: ReferenceReport, console: Console) -> None:
    """Print one table: milliseconds a batch, items a second, speed relative to the baseline, and parity."""
    title = f"milliseconds a batch, {report.num_rounds} rounds; speed is relative to {report.baseline}, turn by turn"
    table = Table(title=title, title_justify="left")
    for column in ("tower", "batch", "input", "engine"):
        table.add_column(column, no_wrap=True)
    for column in ("calls", "p50", "p90", "p99", "items/s", "speed", "p10-p90", "max abs"):
        table.add_column(column, justify="right", no_wrap=True)
    following = [after for _, after in pairwise(report.timings)]
    for row, after in zip(report.timings, [*following, None], strict=True):
        is_last = after is None or (row.tower, row.batch_size) != (after.tower, after.batch_size)
        table.add_row(*_cells(row), end_section=is_last)
    console.print(table)


def _cells(row: EngineTiming) -> list[str]:
    shape = "x".join(str(side) for side in row.input_shape)
    times = [f"{ms:.1f}" for ms in (row.p50_ms, row.p90_ms, row.p99_ms)]
    speed = [f"{row.speedup:.2f}x", f"{row.speedup_p10:.2f}-{row.speedup_p90:.2f}"]
    cells = [row.tower, str(row.batch_size), shape, row.engine, str(row.num_calls), *times]
    return [*cells, f"{row.items_per_s:.1f}", *speed, f"{row.max_abs_difference:.0e}"]
