from mmalign_runtime.bench.bulk import time_bulk
from mmalign_runtime.bench.laps import Laps
from mmalign_runtime.bench.workload import Workload


def test_every_batch_size_embeds_the_same_items() -> None:
    laps: list[tuple[str, int]] = []
    work = Workload("image", "abcde", lambda items, batch_size: laps.append(("".join(items), batch_size)))
    found = time_bulk(work, [1, 4], Laps(num_rounds=2))
    assert {items for items, _ in laps} == {"abcdeabc"}  # the largest batch, filled twice
    assert [(row.batch_size, row.num_items, row.num_laps) for row in found] == [(1, 8, 2), (4, 8, 2)]


def test_a_short_time_makes_laps_short_but_not_below_a_batch() -> None:
    work = Workload("image", "a" * 1000, lambda items, batch_size: None)
    (row,) = time_bulk(work, [4], Laps(seconds=1e-9))
    assert row.num_items == 4
