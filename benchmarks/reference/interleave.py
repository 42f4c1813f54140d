"""Takes turns between engines, so that a machine that slows down, warms up or is shared does so to all of them alike.

One turn is one timed call of every engine on one batch, in an order drawn anew each time. Calls of one turn are
neighbours in time, which is why speed is compared turn by turn (see report.py) and not as a quotient of two averages.
Right before each timed call the engine makes an untimed one, so that its own threads are awake and the others' asleep.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TypeAlias

import msgspec
import numpy as np
from numpy.typing import NDArray

from mmalign_export.errors import ParityError
from mmalign_runtime.engine.session import Feeds
from mmalign_runtime.spec import Modality

EngineFunction: TypeAlias = Callable[[Feeds], NDArray[np.float32]]


class Engine(msgspec.Struct, frozen=True):
    """One way to run one tower: named inputs in, (B, D) float32 unit vectors out."""

    name: str
    tower: Modality
    run: EngineFunction


class Batch(msgspec.Struct, frozen=True):
    """One input of one tower, and the vectors (B, D) that eager PyTorch gives for it."""

    tower: Modality
    feeds: Feeds
    expected: NDArray[np.float32]

    @property
    def size(self) -> int:
        """How many images or texts."""
        return len(self.expected)

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of the first input: (B, 3, S, S) or (B, L)."""
        return tuple(next(iter(self.feeds.values())).shape)


class Schedule(msgspec.Struct, frozen=True):
    """How often, and in which order.

    `turns` maps a batch size to its turns a round (one where it is not named): short calls scatter more and cost less.
    """

    num_rounds: int
    turns: Mapping[int, int]
    seed: int = 0


class Laps(msgspec.Struct, frozen=True):
    """Seconds of every engine on one batch, turn by turn: position i of each list is the same turn."""

    batch: Batch
    seconds: Mapping[str, list[float]]
    max_abs_differences: Mapping[str, float]


def warm_up(engines: Sequence[Engine], batches: Sequence[Batch], *, num_calls: int, bound: float) -> list[Laps]:
    """Run every engine `num_calls` times on every batch of its tower, compile what compiles, and start its laps.

    Raises ParityError when an engine's vectors differ from eager PyTorch's by more than `bound`: it would be timed at
    computing something else.
    """
    return [_start(_of_tower(engines, batch.tower), batch, num_calls, bound) for batch in batches]


def take_turns(
    engines: Sequence[Engine],
    laps: Sequence[Laps],
    schedule: Schedule,
    *,
    clock: Callable[[], float] = time.perf_counter,
) -> None:
    """Time every engine on every batch of its tower, adding to the laps that `warm_up` started."""
    rng = random.Random(schedule.seed)
    for _ in range(schedule.num_rounds):
        for lap in laps:
            lead_in = min((other.batch for other in laps if other.batch.tower == lap.batch.tower), key=_size)
            for _ in range(schedule.turns.get(lap.batch.size, 1)):
                _take_turn(_of_tower(engines, lap.batch.tower), lap, lead_in, rng, clock)


def _size(batch: Batch) -> int:
    return batch.size


def _of_tower(engines: Sequence[Engine], tower: Modality) -> list[Engine]:
    return [engine for engine in engines if engine.tower == tower]


def _start(engines: Sequence[Engine], batch: Batch, num_calls: int, bound: float) -> Laps:
    differences = {}
    for engine in engines:
        for _ in range(num_calls):
            vectors = engine.run(batch.feeds)
        differences[engine.name] = max_abs_difference(engine.name, batch, vectors, bound)
    return Laps(batch, {engine.name: [] for engine in engines}, differences)


def max_abs_difference(name: str, batch: Batch, vectors: NDArray[np.float32], bound: float) -> float:
    """Return the largest difference from the expected vectors. Raises ParityError when it is not within `bound`."""
    same_shape = vectors.shape == batch.expected.shape
    difference = float(np.abs(vectors - batch.expected).max()) if same_shape else float("inf")
    if not difference <= bound:  # NaN is not within it either
        raise ParityError(
            f"engine {name!r} on the {batch.tower} batch of {batch.size}: seen vectors {vectors.shape} that differ "
            f"from eager PyTorch's {batch.expected.shape} by up to {difference:.1e}, expected at most {bound:g}. "
            "Its speed would mean nothing; leave it out with --engines, or mend its export."
        )
    return difference


def _take_turn(
    engines: Sequence[Engine], lap: Laps, lead_in: Batch, rng: random.Random, clock: Callable[[], float]
) -> None:
    for engine in rng.sample(engines, len(engines)):
        # Threads of onnxruntime and OpenMP spin for some milliseconds after a call, on the cores that the next engine
        # wants. Medians on two cores, one text in BERT-base: eager alone 36 ms, onnxruntime alone 22; taking turns 61
        # and 25; with a pause of 20 ms before each call 39 and 23 (threads asleep, caches cold); with this call before
        # it 37 and 22, as when alone. One image in ResNet-50: alone 51 and 26, turns 74 and 30, this 50 and 26. Without
        # spinning onnxruntime is 13% slower even alone.
        engine.run(lead_in.feeds)
        start = clock()
        engine.run(lap.batch.feeds)
        lap.seconds[engine.name].append(clock() - start)
