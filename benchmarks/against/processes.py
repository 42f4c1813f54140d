"""The runner's side of a worker process: start it, ask it, count its CPU time, end it."""

import os
import subprocess
from collections.abc import Sequence
from contextlib import AbstractContextManager
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.against.entries import Entry
from benchmarks.against.protocol import Failed, Load, Loaded, Measure, Measured, ModelFiles, Reply
from benchmarks.harness.places import ROOT
from benchmarks.harness.processes import worker_environment


class PeerError(RuntimeError):
    """A peer could not do what it was asked; the message is its own."""


class PeerProcess(AbstractContextManager["PeerProcess"]):
    """One entry, loaded in a process of its own. Close it, or use it as a context manager."""

    def __init__(
        self,
        entry: Entry,
        python: Path,
        model: ModelFiles,
        num_threads: int,
        log: Path,
        packages: Sequence[Path] = (),
    ) -> None:
        """Start and load; `packages` are folders that win over what is installed.

        Raises PeerError when that fails: its package is not installed, a precision is not there.
        """
        if not python.is_file():
            raise PeerError(f"{python} is not there: `make against` builds its environment")
        self.entry = entry
        self._log = log.open("ab")
        self._process = subprocess.Popen(
            [python, "-m", "benchmarks.against.worker"],
            cwd=ROOT,
            env=worker_environment(packages),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._requests = Connection(os.dup(self._process.stdin.fileno()), readable=False)
        self._replies = Connection(os.dup(self._process.stdout.fileno()), writable=False)
        for pipe in (self._process.stdin, self._process.stdout):
            pipe.close()
        try:
            loaded = self._ask(Load(entry.peer, model, num_threads, entry.precision, entry.engine, entry.spin_us))
        except PeerError:
            self.close()
            raise
        assert isinstance(loaded, Loaded)
        self.versions = loaded.versions

    def measure(self, request: Measure) -> Measured:
        """Measure. Raises PeerError when the peer fails."""
        reply = self._ask(request)
        assert isinstance(reply, Measured)
        return reply

    def vectors(self, request: Measure) -> NDArray[np.float32]:
        """Return the vectors (N, D) of the items, not timed. Raises PeerError when the peer fails."""
        reply = self.measure(Measure(request.kind, request.items, request.setting, lead_in=0, give_vectors=True))
        return np.frombuffer(reply.vectors, np.float32).reshape(len(request.items), -1)

    def median_s(self, request: Measure) -> float:
        """Return the median of the seconds an item. Raises PeerError when the peer fails."""
        return float(np.median(self.measure(request).seconds))

    def cpu_s(self) -> float:
        """Return the CPU time that the process and those below it have used (Linux)."""
        return sum(_cpu_ticks(pid) for pid in _family(self._process.pid)) / os.sysconf("SC_CLK_TCK")

    def close(self) -> None:
        """End the process: it ends by itself when nobody can ask it any more."""
        self._requests.close()
        self._replies.close()
        try:
            self._process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._log.close()

    def __exit__(self, *raised: object) -> None:
        self.close()

    def _ask(self, request: Load | Measure) -> Reply:
        try:
            self._requests.send(request)
            reply: Reply = self._replies.recv()
        except (EOFError, OSError) as error:
            raise PeerError(f"{self.entry.name}: its process ended; see {self._log.name}") from error
        if isinstance(reply, Failed):
            raise PeerError(reply.reason)
        return reply


def _family(pid: int) -> list[int]:
    found = [pid]
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in task.read_text().split():
            found += _family(int(child))
    return found


def _cpu_ticks(pid: int) -> int:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:  # it has ended; its time is in its parent's fields for children
        return 0
    return sum(int(field) for field in fields[11:15])  # utime, stime, and those of children that were waited for
