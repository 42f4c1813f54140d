"""Progress on standard error: a bar in a terminal, one line at the end anywhere else, of the first process only."""

from __future__ import annotations

import functools
import logging
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from mmalign.distributed import is_first_process

logger = logging.getLogger(__name__)
Item = TypeVar("Item")


@functools.cache
def stderr_console() -> Console:
    """Return the console that bars and log lines share, so that a line goes above a bar and not through it."""
    return Console(stderr=True)


class ConsoleHandler(logging.Handler):
    """Prints log lines on that console, as they are."""

    def emit(self, record: logging.LogRecord) -> None:
        """Print one record."""
        stderr_console().print(self.format(record), soft_wrap=True, markup=False, highlight=False)


def log_to_stderr(package: str) -> None:
    """Print what a package tells, and everyone's warnings. To be called before libraries set up logging themselves."""
    logging.basicConfig(level=logging.WARNING, format="%(message)s", handlers=[ConsoleHandler()])
    logging.getLogger(package).setLevel(logging.INFO if is_first_process() else logging.ERROR)


def track(items: Iterable[Item], description: str, total: int) -> Iterator[Item]:
    """Yield the items and show how many of `total` are done."""
    started = time.perf_counter()
    if stderr_console().is_terminal and is_first_process():
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        with Progress(*columns, console=stderr_console(), transient=True) as progress:
            yield from progress.track(items, total=total, description=description)
    else:
        yield from items
    logger.info("%s: done in %.1f s", description, time.perf_counter() - started)
