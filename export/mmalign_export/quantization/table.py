"""The report as a person reads it in a terminal: what was chosen first, then every trial."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from mmalign_export.quantization.report import NOT_TIMED, QuantizationReport, Trial


def print_report(report: QuantizationReport) -> None:
    """Print the chosen towers, what they cost together, and a line a trial."""
    console = Console(highlight=False)
    for tower, trial in report.chosen.items():
        console.print(
            f"[bold]{tower}[/bold]: {trial.name()}, {trial.speedup():.2f}x as fast as float32, "
            f"lowest golden cosine {trial.golden_cosine:.4f} ({trial.golden_worst})",
            soft_wrap=True,
        )
    for tower in report.fp32_size_bytes:
        if tower not in report.chosen:
            console.print(f"[bold]{tower}[/bold]: stays float32, nothing qualified", soft_wrap=True)
    for tower in report.chosen:
        if line := report.coverage(tower):
            console.print(line, soft_wrap=True)
    if not report.asks_for_speed:
        console.print(NOT_TIMED, soft_wrap=True)
    before, after = report.fp32_recall, report.pair_recall
    if after is not None:
        lost = f"{report.pair_lost_points[1]:+.2f} points lost of {report.budget}"
        console.print(
            f"recall@1 {before[0].at_1:.3f} / {before[1].at_1:.3f} in float32, "
            f"{after[0].at_1:.3f} / {after[1].at_1:.3f} quantized: {lost}",
            soft_wrap=True,
        )
    for tower in report.fp32_size_bytes:
        trials = [trial for trial in report.trials if trial.tower == tower]
        if trials:  # none where the engine ran no candidate
            console.print(_table(trials, report.chosen.get(tower)))


def _table(trials: Sequence[Trial], chosen: Trial | None) -> Table:
    table = Table("recipe", title=f"{trials[0].tower}, times as fast as float32", title_justify="left")
    for column in (*(f"batch {speed.num_items}" for speed in trials[0].speeds), "lost @1", "cosine", "golden"):
        table.add_column(column, justify="right")
    table.add_column("verdict")
    for trial in trials:
        verdict = "[bold]chosen[/bold]" if trial == chosen else trial.refused or "inside the budget"
        table.add_row(*_cells(trial), verdict)
    return table


def _cells(trial: Trial) -> list[str]:
    speeds = [f"{speed.ratio():.2f}x" for speed in trial.speeds]
    cosines = [f"{trial.mean_cosine:.5f}", f"{trial.golden_cosine:.4f}"]
    return [trial.name(), *speeds, f"{trial.lost_points[1]:+.2f}", *cosines]
