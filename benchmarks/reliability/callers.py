"""Many threads, one embedder: python -m benchmarks.reliability callers

1, 2 and 8 callers at once, interleaved with and without the semaphore that admits as many runs as there are threads.
Without it is what onnxruntime does by itself. Each caller embeds decoded images, a batch a call, as fast as it can.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from time import perf_counter

import msgspec
import numpy as np

from benchmarks.harness.places import bundle_at_hand
from benchmarks.reliability.record import Row, record
from mmalign_runtime.embedder import Embedder

CALLERS = (1, 2, 8)
BATCH_SIZES = (1, 8)
SECONDS = 3.0
NUM_ROUNDS = 3
# Of the images a second of one caller: what eight callers should still get together.
MIN_SHARE = 0.9


class Lap(msgspec.Struct, frozen=True):
    """One measurement: images a second over all callers, and the milliseconds of a call."""

    has_door: bool
    num_callers: int
    batch_size: int
    images_per_s: float
    p50_ms: float
    p99_ms: float
    most_threads: int


@contextmanager
def without_door(embedder: Embedder) -> Iterator[None]:
    """Let every run through at once, as plain onnxruntime does."""
    session = embedder.image.session
    turn = session._turn
    session._turn = nullcontext
    try:
        yield
    finally:
        session._turn = turn


def lap(embedder: Embedder, num_callers: int, batch_size: int, *, has_door: bool) -> Lap:
    """Let the callers call for some seconds."""
    image = np.random.default_rng(0).standard_normal((1, 3, *embedder.image.spec.shape), np.float32)
    batch, latencies_ms, most = [image] * batch_size, list[float](), list[int]()
    start = threading.Barrier(num_callers)
    end = perf_counter() + SECONDS

    def call() -> None:
        start.wait()
        while perf_counter() < end:
            began = perf_counter()
            embedder.image.vectors(batch)
            latencies_ms.append((perf_counter() - began) * 1000)
        most.append(len(list(Path("/proc/self/task").iterdir())))

    threads = [threading.Thread(target=call) for _ in range(num_callers)]
    began = perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    rate = len(latencies_ms) * batch_size / (perf_counter() - began)
    return Lap(has_door, num_callers, batch_size, round(rate, 1), *_shown(latencies_ms), max(most))


def _shown(latencies_ms: list[float]) -> tuple[float, float]:
    p50_ms, p99_ms = np.percentile(latencies_ms, (50, 99))
    return round(float(p50_ms), 1), round(float(p99_ms), 1)


def _rate(laps: list[Lap], num_callers: int, batch_size: int, *, has_door: bool) -> float:
    kind = (num_callers, batch_size, has_door)
    return float(np.median([x.images_per_s for x in laps if (x.num_callers, x.batch_size, x.has_door) == kind]))


def run(bundle: Path | None = None) -> None:
    """Measure in turns, and record medians."""
    embedder = Embedder.load(bundle or bundle_at_hand(), towers=("image",))
    laps: list[Lap] = []
    for _ in range(NUM_ROUNDS):
        for batch_size in BATCH_SIZES:
            for num_callers in CALLERS:
                laps.append(lap(embedder, num_callers, batch_size, has_door=True))
                with without_door(embedder):
                    laps.append(lap(embedder, num_callers, batch_size, has_door=False))
    rows = []
    for batch_size in BATCH_SIZES:
        with_door = [_rate(laps, n, batch_size, has_door=True) for n in CALLERS]
        without = [_rate(laps, n, batch_size, has_door=False) for n in CALLERS]
        words = f"{' / '.join(f'{rate:.0f}' for rate in with_door)} images/s with the semaphore, "
        words += f"{' / '.join(f'{rate:.0f}' for rate in without)} without"
        good = sum(rate >= MIN_SHARE * with_door[0] for rate in with_door)
        rows.append(Row(f"1 / 2 / 8 callers at once, batch {batch_size}", len(CALLERS), good, words))
    record("callers", rows, {"laps": laps})
