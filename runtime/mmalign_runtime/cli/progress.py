"""The progress bar of a long embedding, on stderr: how many, how fast, how long still."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.text import Text


class RateColumn(ProgressColumn):
    """Items a second, those of an earlier run not counted."""

    def render(self, task: Task) -> Text:
        """Return the mean rate so far, or nothing before the first items are through."""
        elapsed_s = task.finished_time or task.elapsed
        num_done = task.completed - task.fields["num_before"]
        return Text(f"{num_done / elapsed_s:.1f} items/s" if elapsed_s and num_done else "")


@contextmanager
def progress_bar(description: str, total: int, num_before: int = 0) -> Iterator[Callable[[int], None]]:
    """Show how far a run is inside the block; call what is given with the number of items that were done.

    `num_before` of the `total` were done by an earlier run.
    """
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), RateColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as progress:
        task = progress.add_task(description, total=total, completed=num_before, num_before=num_before)
        yield lambda num_items: progress.advance(task, num_items)
