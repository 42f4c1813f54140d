"""One model of a tower on this machine: its vectors, its speed beside float32, in turns, and what it keeps in memory.

Memory is measured in a process of its own, which holds no torch: the model is loaded, and run once.
python -m mmalign_export.quantization.trial MODEL.onnx FEEDS.npz ENGINE THREADS
Letters: N items, D embedding.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from time import perf_counter

import msgspec
import numpy as np
from numpy.typing import NDArray

from mmalign_export.errors import QuantizationError
from mmalign_runtime.engine.engines import find_engine
from mmalign_runtime.engine.pool import thread_pool
from mmalign_runtime.engine.session import Feeds, Model, Session, SessionOptions
from mmalign_runtime.streaming import Vectors

_NUM_ROUNDS = 15
_NUM_WARMUP = 2
_STATUS = Path("/proc/self/status")


class Speed(msgspec.Struct, frozen=True):
    """Median milliseconds of one run, and of float32 between these runs."""

    num_items: int
    median_ms: float
    fp32_median_ms: float

    def ratio(self) -> float:
        """Return how many times as fast as float32."""
        return self.fp32_median_ms / self.median_ms


def open_model(contents: bytes, input_names: tuple[str, ...], options: SessionOptions) -> Session:
    """Open an ONNX model from its bytes with the engine of `options`. Raises as `Engine.open` does."""
    return find_engine(options.engine).open(Model(contents, "the candidate", input_names), options)


def run_all(session: Session, batches: Sequence[Feeds]) -> Vectors:
    """Return (N, D) over all batches."""
    return np.concatenate([session.run(feeds) for feeds in batches])


def time_beside(session: Session, float32: Session, feeds: Feeds) -> Speed:
    """Run both in turns and return the medians."""
    laps: tuple[list[float], list[float]] = ([], [])
    for _ in range(_NUM_WARMUP + _NUM_ROUNDS):
        for each, found in zip((session, float32), laps, strict=True):
            start = perf_counter()
            each.run(feeds)
            found.append((perf_counter() - start) * 1000)
    medians = [float(np.median(found[_NUM_WARMUP:])) for found in laps]
    return Speed(len(next(iter(feeds.values()))), medians[0], medians[1])


def cosines(vectors: Vectors, reference: Vectors) -> NDArray[np.float64]:
    """Return the cosine of each vector with its reference, (N,)."""
    products = (vectors.astype(np.float64) * reference).sum(axis=1)
    found: NDArray[np.float64] = products / (np.linalg.norm(vectors, axis=1) * np.linalg.norm(reference, axis=1))
    return found


def largest_move(session: Session, together: Feeds) -> float:
    """Return how far a vector moves, at most in any component, when its batch-mates leave."""
    vectors = session.run(together)
    moved = 0.0
    for index in range(len(vectors)):
        alone = session.run({name: values[index : index + 1] for name, values in together.items()})
        moved = max(moved, float(np.abs(alone[0] - vectors[index]).max()))
    return moved


def resident_mb(contents: bytes, feeds: Feeds, options: SessionOptions) -> float | None:
    """Return by how many MB a process grows that loads the model and runs it once on the CPU; None where Linux does not
    say, and on a device, whose own memory it is."""
    if not _STATUS.exists() or options.provider != "cpu":
        return None
    with tempfile.TemporaryDirectory() as folder:
        model, inputs = Path(folder) / "model.onnx", Path(folder) / "feeds.npz"
        model.write_bytes(contents)
        np.savez(inputs, **feeds)  # type: ignore[arg-type]  # numpy's stub takes keywords for its own options
        threads = str(options.pool.num_threads)
        command = [sys.executable, "-m", __name__, str(model), str(inputs), options.engine, threads]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise QuantizationError(f"the candidate failed in a process of its own: {done.stderr.strip()[-500:]}")
    return float(done.stdout)


def _main(model: str, inputs: str, engine: str, threads: str) -> None:
    with np.load(inputs) as stored:
        feeds = dict(stored)
    options = SessionOptions("cpu", thread_pool(int(threads)), engine=engine)
    contents = Path(model).read_bytes()
    before = _resident_kb() - len(contents) // 1024
    session = open_model(contents, tuple(feeds), options)
    session.run(feeds)
    del contents
    sys.stdout.write(f"{(_resident_kb() - before) / 1024}\n")


def _resident_kb() -> int:
    found = re.search(r"VmRSS:\s+(\d+) kB", _STATUS.read_text())
    assert found is not None
    return int(found[1])


if __name__ == "__main__":
    _main(*sys.argv[1:])
