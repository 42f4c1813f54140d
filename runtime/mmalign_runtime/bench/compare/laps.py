"""What one try of a candidate measures: it is loaded, warmed up, timed over the same items as all others, and closed.

Closed, because all of them at once would fill the memory; loaded again for each try, so that their tries interleave.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from time import perf_counter

import msgspec
import numpy as np

from mmalign_runtime.bench.compare.candidates import Candidate
from mmalign_runtime.bench.workload import Workload, image_work, text_work
from mmalign_runtime.bundle import Bundle
from mmalign_runtime.embedder import Embedder
from mmalign_runtime.engine.providers import Provider
from mmalign_runtime.image import ImageItem
from mmalign_runtime.profile import Goal, Measured
from mmalign_runtime.spec import Modality

# One try of one kind; below it timers and single pauses weigh too much.
_TRY_S = 0.4
_MIN_ITEMS = 8


class Lap(msgspec.Struct, frozen=True):
    """One kind of items at one batch size: the seconds that each request took, and how many items a request had."""

    kind: Modality
    batch_size: int
    seconds: tuple[float, ...]
    items_per_request: int


class Track(msgspec.Struct, frozen=True, kw_only=True):
    """What every candidate is run over: a bundle's towers, usable items, and how many of each kind a lap takes."""

    bundle: Bundle
    provider: Provider
    goal: Goal
    towers: tuple[Modality, ...]
    images: Sequence[ImageItem]
    texts: Sequence[str]
    num_items: dict[Modality, int]

    def load(self, candidate: Candidate) -> Embedder:
        """Load a candidate. Raises as `Embedder.load` does."""
        embedder = Embedder(
            self.bundle,
            engine=candidate.engine,
            provider=self.provider,
            precision=candidate.precision,
            num_threads=candidate.num_threads,
            allow_spinning=candidate.allow_spinning,
            towers=self.towers,
        )
        embedder.load_towers()
        return embedder

    def run(self, candidate: Candidate, batch_sizes: Sequence[int]) -> list[Lap]:
        """Try a candidate once: for latency each item alone, for throughput all of them at each batch size."""
        laps = []
        with self.load(candidate) as embedder:
            for kind in self.towers:
                work, num_items = works(embedder, self.images, self.texts)[kind], self.num_items[kind]
                for size in (1,) if self.goal == "latency" else batch_sizes:
                    work.ask(0, num_items=min(2 * size, num_items), batch_size=size)  # plans memory, fills caches
                    if self.goal == "latency":
                        laps.append(Lap(kind, 1, tuple(_seconds(work, number) for number in range(num_items)), 1))
                    else:
                        laps.append(Lap(kind, size, (_seconds(work, 0, num_items, size),), num_items))
        return laps


def works(embedder: Embedder, images: Sequence[ImageItem], texts: Sequence[str]) -> dict[Modality, Workload]:
    """Return the workload of each tower that an embedder has."""
    made: dict[Modality, Callable[[], Workload]] = {
        "image": lambda: image_work(embedder, images),
        "text": lambda: text_work(embedder, texts),
    }
    return {kind: made[kind]() for kind in embedder.towers}


def lap_items(work: Workload, batch_sizes: Sequence[int], goal: Goal) -> int:
    """Return how many items a lap takes: what fits a try, as the default candidate is now, and the largest batch."""
    work.ask(0, num_items=min(_MIN_ITEMS, work.num_items))
    started = perf_counter()
    work.ask(0, num_items=_MIN_ITEMS)
    item_s = (perf_counter() - started) / _MIN_ITEMS
    affordable = max(_MIN_ITEMS, int(_TRY_S / item_s))
    if goal == "latency":
        return min(affordable, max(_MIN_ITEMS, work.num_items))
    return max(max(batch_sizes), min(affordable, 2 * max(batch_sizes)))


def measured(laps: Sequence[Lap]) -> Measured:
    """Sum up all laps of one kind at one batch size. Of throughput's laps, a batch's time is the mean within a lap."""
    batch_ms = [1000 * seconds * lap.batch_size / lap.items_per_request for lap in laps for seconds in lap.seconds]
    rates = [lap.items_per_request * len(lap.seconds) / sum(lap.seconds) for lap in laps]
    return Measured(
        kind=laps[0].kind,
        batch_size=laps[0].batch_size,
        p50_ms=float(np.percentile(batch_ms, 50)),
        p99_ms=float(np.percentile(batch_ms, 99)),
        items_per_s=float(np.median(rates)),
    )


def _seconds(work: Workload, number: int, num_items: int = 1, batch_size: int = 1) -> float:
    started = perf_counter()
    work.ask(number, num_items=num_items, batch_size=batch_size)
    return perf_counter() - started
