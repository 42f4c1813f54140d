from mmalign_runtime.bench.bulk import time_bulk
from mmalign_runtime.bench.turns import Length
from mmalign_runtime.bench.workload import Workload


def test_every_batch_size_embeds_the_same_items() -> None:
    laps: list[tuple[tuple[int, ...], int]] = []
    work = Workload("image", 5, lambda positions, batch_size: laps.append((tuple(positions), batch_size)))
    found = time_bulk(work, [1, 4], Length(num_rounds=2), lambda: None)
    assert {positions for positions, _ in laps} == {(0, 1, 2, 3, 4, 0, 1, 2)}  # the largest batch, filled twice
    assert [(row.batch_size, row.num_items, row.num_laps) for row in found] == [(1, 8, 2), (4, 8, 2)]


def test_a_short_time_makes_laps_short_but_not_below_a_batch() -> None:
    work = Workload("image", 1000, lambda positions, batch_size: None)
    (row,) = time_bulk(work, [4], Length(seconds=1e-9), lambda: None)
    assert row.num_items == 4
