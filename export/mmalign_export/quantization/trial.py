"""One model of a tower on this machine: its vectors, and how fast it is beside float32, in turns.

Letters: N items, D embedding.
"""

from __future__ import annotations

from collections.abc import Sequence
from time import perf_counter

import msgspec
import numpy as np
from numpy.typing import NDArray

from mmalign_runtime.engine.engines import find_engine
from mmalign_runtime.engine.session import Feeds, Model, Session, SessionOptions
from mmalign_runtime.streaming import Vectors

_NUM_ROUNDS = 15
_NUM_WARMUP = 2


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


def first_items(feeds: Feeds, count: int) -> Feeds:
    """Return the first items of a batch."""
    return {name: values[:count] for name, values in feeds.items()}


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
