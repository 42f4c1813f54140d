import threading
from itertools import count

import pytest

from mmalign_runtime.bench.closed_loop import ask_for, time_closed_loop
from mmalign_runtime.bench.laps import Laps
from mmalign_runtime.bench.workload import Workload
from tests.runtime.bench.conftest import FakeClock


def test_a_caller_asks_again_as_soon_as_it_is_answered(clock: FakeClock) -> None:
    asked = []

    def ask(number: int) -> None:
        asked.append(number)
        clock.sleep(0.1)

    lap = ask_for(ask, 1, 0.95, count(), clock.now)
    assert asked == list(range(10))
    assert lap.latencies_s == pytest.approx([0.1] * 10)
    assert lap.seconds == pytest.approx(1.0)


def test_even_the_slowest_gets_one_answer(clock: FakeClock) -> None:
    assert len(ask_for(lambda number: clock.sleep(9), 1, 0.1, count(), clock.now).latencies_s) == 1


def test_callers_ask_at_the_same_time() -> None:
    barrier = threading.Barrier(3, timeout=30)
    lap = ask_for(lambda number: barrier.wait(), 3, 0, count())
    assert len(lap.latencies_s) == 3


def test_items_go_on_from_lap_to_lap() -> None:
    """Every item is embedded equally often, to within the one that the time cut off."""
    embedded: list[str] = []
    work = Workload("text", "abcde", lambda items, batch_size: embedded.extend(items))
    found = time_closed_loop(work, [1], Laps(seconds=0.05))
    counts = [embedded.count(item) for item in "abcde"]
    assert max(counts) - min(counts) <= 1
    assert found[0].latency.num_samples <= len(embedded)  # the first lap is thrown away
