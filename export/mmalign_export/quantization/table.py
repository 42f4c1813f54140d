"""The report as a person reads it in a terminal: what was chosen first, then every trial."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table

from mmalign_export.quantization.report import QuantizationReport
from mmalign_export.quantization.summary import (
    CHOSEN,
    COSINE,
    GOLDEN,
    LOST,
    RECIPE,
    choices,
    notes,
    ratio_columns,
    row,
    trials_of,
    verdict,
)
from mmalign_runtime.spec import Modality


def print_report(report: QuantizationReport) -> None:
    """Print the chosen towers, what they cost together, and a line a trial."""
    console = Console(highlight=False)
    for tower, choice in choices(report):
        console.print(f"[bold]{tower}[/bold]: {choice}", soft_wrap=True)
    for note in notes(report):
        console.print(note, soft_wrap=True)
    for tower in report.fp32_size_bytes:
        if trials_of(report, tower):
            console.print(_table(report, tower))


def _table(report: QuantizationReport, tower: Modality) -> Table:
    trials = trials_of(report, tower)
    columns = [*ratio_columns(trials[0]), LOST, COSINE, GOLDEN]
    table = Table(RECIPE.head, title=f"{tower}, times as fast as float32", title_justify="left")
    for column in columns:
        table.add_column(column.head, justify="right")
    table.add_column("verdict")
    for trial in trials:
        found = verdict(report, trial)
        table.add_row(*row([RECIPE, *columns], trial), f"[bold]{found}[/bold]" if found == CHOSEN else found)
    return table
