"""An evaluation on the terminal: a table a source that fits 80 columns and shows at once who is ahead."""

from __future__ import annotations

from collections.abc import Sequence

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from mmalign.figures.rows import Group, groups, remarks
from mmalign.figures.scores import BundleScores, Diagnosis, Evaluation, Scored


def print_bundle_scores(scores: BundleScores) -> None:
    """Print a bundle's figures beside chance."""
    console = Console()
    console.print(f"{scores.space_id}, {scores.precision}", highlight=False, soft_wrap=True)
    console.print(f"{scores.num_images} images, {scores.num_captions} captions", highlight=False)
    shown = groups(scores.model, None, scores.chance, None, scores.num_classes)
    columns = {"bundle": "model", "95%": "interval", "chance": "chance"}
    _print(console, shown, columns, scores.model, scores.diagnosis)


def print_evaluation(evaluation: Evaluation) -> None:
    """Print the figures of each source, methods side by side."""
    console = Console()
    for scores in evaluation.sources:
        held_out = ", held out of training" if scores.is_held_out else ""
        console.print(Text.assemble((scores.source, "bold"), held_out), soft_wrap=True)
        console.print(
            f"{evaluation.split}: {scores.num_images} images of unseen concepts, {scores.num_captions} captions",
            soft_wrap=True,
            highlight=False,
        )
        shown = groups(scores.model, scores.linear_map, scores.chance, scores.differences, scores.num_classes)
        columns = {
            "trained": "model",
            "95%": "interval",
            "linear map": "linear_map",
            "ahead, 95%": "ahead",
            "chance": "chance",
        }
        _print(console, shown, columns, scores.model, scores.diagnosis)


def _print(
    console: Console, shown: Sequence[Group], columns: dict[str, str], model: Scored, diagnosis: Diagnosis | None
) -> None:
    table = Table("", box=SIMPLE_HEAD, pad_edge=False)
    for title in columns:
        table.add_column(title, justify="right")
    for group in shown:
        table.add_row(Text(group.title, "bold"))
        for number, row in enumerate(group.rows, start=1):
            cells = [getattr(row, field) for field in columns.values()]
            table.add_row(f"  {row.name}", *cells, end_section=number == len(group.rows))
    console.print(table)
    for line in [] if diagnosis is None else remarks(model, diagnosis):
        console.print(line, highlight=False, markup=False)
    console.print()
