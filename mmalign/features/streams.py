"""Batches through a module in several streams, each a thread with its share of torch's threads.

torch splits every operation among its threads, which wait for each other at its end; convolutions of a few images are
too short for that. In streams each thread goes through the whole module by itself.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

import torch

_MOST_STREAMS = 8  # they share one interpreter lock, which starts every operation

Batch = TypeVar("Batch")
Result = TypeVar("Result")


def in_streams(run: Callable[[Batch], Result], batches: Iterable[Batch]) -> Iterator[Result]:
    """Yield `run(batch)` of each batch, in their order, several at once.

    Batches are made in the calling thread, a few ahead of what is yielded. What `run` or `batches` raise is raised in
    its turn, and what has not begun by then never runs.
    """
    num_threads = torch.get_num_threads()
    num_streams = min(num_threads, _MOST_STREAMS)
    running: deque[Future[Result]] = deque()
    threads = ThreadPoolExecutor(num_streams, "tower", torch.set_num_threads, (num_threads // num_streams,))
    try:
        for batch in batches:
            running.append(threads.submit(run, batch))
            if len(running) > 2 * num_streams:
                yield running.popleft().result()
        while running:
            yield running.popleft().result()
    finally:
        threads.shutdown(cancel_futures=True)
        torch.set_num_threads(num_threads)  # a stream's number is that of all threads that come after it
