"""The worker processes that prepare steps: how they start, and how they and the process that trains end."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import connection
from multiprocessing.context import BaseContext
from multiprocessing.process import BaseProcess
from typing import TypeVar

from torch.utils.data import DataLoader

from mmalign.errors import TrainingError

T = TypeVar("T")

_UNTIL_DEAD_S = 5.0  # a pipe is seen to be closed before its process is seen to have ended


def from_workers(loader: DataLoader[T], num_workers: int) -> Iterator[T]:
    """Yield what a loader gives. Raises TrainingError when one of its worker processes was killed."""
    with _without_main_module():
        steps = iter(loader)
    workers = multiprocessing.active_children() if num_workers else []
    while True:
        try:
            step = next(steps)
        except StopIteration:
            return
        except (RuntimeError, OSError, EOFError) as error:  # torch's own, or a pipe's whose other end is gone
            if workers and isinstance(error, OSError | EOFError):
                connection.wait([worker.sentinel for worker in workers], _UNTIL_DEAD_S)
            if killed := [worker for worker in workers if worker.exitcode]:
                raise TrainingError(_death_of(killed[0], num_workers)) from error
            raise
        yield step


def _death_of(worker: BaseProcess, num_workers: int) -> str:
    code = worker.exitcode or 0
    if code < 0:
        how = (
            f"was killed by {signal.Signals(-code).name}. A system that runs out of memory kills processes so: set "
            "fewer workers, or a smaller train.batch_size"
        )
    else:
        how = f"ended with exit code {code}. What it wrote to standard error says why"
    return (
        f"worker process {worker.pid}, one of {num_workers} that prepare steps (train.num_workers), {how}. --resume "
        "goes on from the last checkpoint."
    )


def end_with_trainer(worker: int) -> None:
    """End a worker when the process that trains was killed: torch watches the fork server, which waits for workers."""
    trainer = multiprocessing.parent_process()
    assert trainer is not None, "workers are started by the process that trains"

    def wait() -> None:
        trainer.join()
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


def worker_context() -> BaseContext:
    """Return a context whose workers start from a fresh process that has imported what they need, once for all.

    Forked from this one they would inherit the locks of the tokenizer's and onnxruntime's threads.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["mmalign.training.inputs"])
    return context


@contextmanager
def _without_main_module() -> Iterator[None]:
    """Let processes that start inside not import the program's main module: what they run is not there.

    By default they do, and so train once more in a script that trains at its top level.
    """
    main = sys.modules["__main__"]
    kept: dict[str, object] = {name: vars(main)[name] for name in ("__spec__", "__file__") if name in vars(main)}
    vars(main).update(dict.fromkeys(kept))
    try:
        yield
    finally:
        vars(main).update(kept)
