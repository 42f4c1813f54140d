"""Child processes: their environment, what they print, how long until they do; and the memory of this process."""

import os
import subprocess
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from time import perf_counter
from typing import TypeVar

from benchmarks.harness.places import ROOT

Answer = TypeVar("Answer")

_STATUS = Path("/proc/self/status")
# How many threads a peer takes is said to it in its own words; what the shell says would overrule that.
_THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "TOKENIZERS_PARALLELISM")
_OFFLINE = {"HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}


def resident_mb() -> float:
    """Return this process's VmRSS in MB (Linux)."""
    lines = dict(line.split(":", 1) for line in _STATUS.read_text().splitlines())
    return round(int(lines["VmRSS"].split()[0]) / 1024, 1)


def worker_environment(packages: Sequence[Path] = ()) -> dict[str, str]:
    """Return the environment of a worker: no network, no thread counts from outside, its packages from `packages`."""
    kept = {name: value for name, value in os.environ.items() if name not in _THREAD_VARIABLES}
    path = {"PYTHONPATH": os.pathsep.join(map(str, packages))} if packages else {}
    return kept | _OFFLINE | path


def apart(work: Callable[..., Answer], *arguments: object) -> Answer:
    """Call a function in a new process, which imports its module and nothing before, and return the answer."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(work, *arguments).result()


def first_line_s(command: Sequence[str], packages: Sequence[Path] = ()) -> float:
    """Return the seconds from starting a process to its first line of output. Raises RuntimeError when it has none.

    `packages` are folders that win over what is installed.
    """
    start = perf_counter()
    with subprocess.Popen(
        command, cwd=ROOT, env=worker_environment(packages), stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        line = process.stdout.readline()
        seconds = perf_counter() - start
        if not line:
            raise RuntimeError(f"{command[0]} printed nothing: {process.stderr.read().decode()}")
        process.communicate()
    return seconds
