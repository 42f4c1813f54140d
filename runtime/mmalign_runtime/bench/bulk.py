"""Items a second through the embedder's public path, many at a time: decoding and the tower overlap as in `embed`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from time import perf_counter

import msgspec
import numpy as np

from mmalign_runtime.bench.turns import MIN_LAPS, Length, take_turns
from mmalign_runtime.bench.workload import Workload
from mmalign_runtime.spec import Modality


class BulkTiming(msgspec.Struct, frozen=True, kw_only=True):
    """One batch size: items a second, the median of laps, each over the same `num_items` items."""

    kind: Modality
    batch_size: int
    num_items: int
    num_laps: int
    items_per_s: float


def time_bulk(
    work: Workload, batch_sizes: Sequence[int], length: Length, between: Callable[[], object]
) -> list[BulkTiming]:
    """Let batch sizes take turns, every lap over the same items, so that no size gets the small pictures."""
    num_items = _lap_items(work, batch_sizes, length)

    def lap(batch_size: int) -> float:
        started = perf_counter()
        work.ask(0, num_items=num_items, batch_size=batch_size)
        return num_items / (perf_counter() - started)

    laps = take_turns({size: partial(lap, size) for size in batch_sizes}, length, between=between, num_warmup=1)
    return [
        BulkTiming(
            kind=work.kind,
            batch_size=size,
            num_items=num_items,
            num_laps=len(found),
            items_per_s=float(np.median(found)),
        )
        for size, found in laps.items()
    ]


def _lap_items(work: Workload, batch_sizes: Sequence[int], length: Length) -> int:
    """Return how many items a lap has: every one once and the largest batch filled twice, or fewer where time is short.

    Never less than one largest batch.
    """
    wanted = max(work.num_items, 2 * max(batch_sizes))
    if length.num_rounds is not None:
        return wanted
    started = perf_counter()
    work.ask(0, num_items=max(batch_sizes), batch_size=max(batch_sizes))
    item_s = (perf_counter() - started) / max(batch_sizes)
    affordable = int(length.seconds / (item_s * (MIN_LAPS + 1) * len(batch_sizes)))
    return max(max(batch_sizes), min(wanted, affordable))
