"""Items a second through the embedder's public path, many at a time: decoding and the tower overlap as in `embed`."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from time import perf_counter

import msgspec
import numpy as np

from mmalign_runtime.bench.laps import MIN_LAPS, Laps
from mmalign_runtime.bench.workload import Workload
from mmalign_runtime.spec import Modality


class BulkTiming(msgspec.Struct, frozen=True, kw_only=True):
    """One batch size: items a second, the median of laps, each over the same `num_items` items."""

    kind: Modality
    batch_size: int
    num_items: int
    num_laps: int
    items_per_s: float


def time_bulk(work: Workload, batch_sizes: Sequence[int], laps: Laps) -> list[BulkTiming]:
    """Interleave batch sizes, every lap over the same items, so that no size gets the small pictures."""
    num_items = _lap_items(work, batch_sizes, laps)

    def lap(batch_size: int) -> float:
        started = perf_counter()
        work.ask(0, num_items=num_items, batch_size=batch_size)
        return num_items / (perf_counter() - started)

    found = laps.take({size: partial(lap, size) for size in batch_sizes}, num_warmup=1)
    return [
        BulkTiming(
            kind=work.kind,
            batch_size=size,
            num_items=num_items,
            num_laps=len(rates),
            items_per_s=float(np.median(rates)),
        )
        for size, rates in found.items()
    ]


def _lap_items(work: Workload, batch_sizes: Sequence[int], laps: Laps) -> int:
    """Return how many items a lap has: every one once and the largest batch filled twice, or fewer where time is short.

    Never less than one largest batch.
    """
    largest = max(batch_sizes)
    wanted = max(len(work.items), 2 * largest)
    if laps.num_rounds is not None:
        return wanted
    started = perf_counter()
    work.ask(0, num_items=largest, batch_size=largest)
    item_s = (perf_counter() - started) / largest
    affordable = int(laps.seconds / (item_s * (MIN_LAPS + 1) * len(batch_sizes)))
    return max(largest, min(wanted, affordable))
