"""Progress on standard error: a bar in a terminal, one line at the end anywhere else, of the first process only."""

from __future__ import annotations

import functools
import logging
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from mmalign.distributed import is_first_process

logger = logging.getLogger(__name__)
Item = TypeVar("Item")


class Pace:
    """Which of two waits for the other: the loader that gives batches, or the model that takes steps."""

    def __init__(self) -> None:
        self._waiting_s = self._stepping_s = 0.0
        self._num_pairs = 0

    def waiting(self, batches: Iterable[Item]) -> Iterator[Item]:
        """Yield the batches; the time until each is there is the loader's."""
        remaining = iter(batches)
        while True:
            started = time.perf_counter()
            try:
                batch = next(remaining)
            except StopIteration:
                return
            self._waiting_s += time.perf_counter() - started
            yield batch

    @contextmanager
    def stepping(self, num_pairs: int) -> Iterator[None]:
        """Count what is done inside as a step of the model, over that many pairs."""
        started = time.perf_counter()
        yield
        self._stepping_s += time.perf_counter() - started
        self._num_pairs += num_pairs

    def tell(self) -> None:
        """Log the pairs a second since the last time, and those of the model alone; then count anew."""
        total_s = self._waiting_s + self._stepping_s
        if self._num_pairs and total_s:
            logger.info(
                "%.0f pairs/s: %.0f%% of the time waits for the loader, the model alone takes %.0f pairs/s",
                *(self._num_pairs / total_s, 100 * self._waiting_s / total_s, self._num_pairs / self._stepping_s),
            )
        self._waiting_s = self._stepping_s = 0.0
        self._num_pairs = 0


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
