"""The progress bar of a long embedding, on stderr: how many, how fast, how long still."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.text import Text

Item = TypeVar("Item")


class RateColumn(ProgressColumn):
    """Items a second."""

    def render(self, task: Task) -> Text:
        """Return the mean rate so far, or nothing before the first items are through."""
        elapsed_s = task.finished_time or task.elapsed
        return Text(f"{task.completed / elapsed_s:.1f} items/s" if elapsed_s and task.completed else "")


def with_progress(items: Iterable[Item], total: int, description: str) -> Iterator[Item]:
    """Yield the items and show how far they are."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), RateColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as progress:
        yield from progress.track(items, total=total, description=description)
