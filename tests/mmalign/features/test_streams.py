from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest
import torch

from mmalign.features.streams import in_streams


@pytest.fixture(autouse=True)
def four_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(4)
    yield
    torch.set_num_threads(before)


def test_results_come_in_the_order_of_the_batches() -> None:
    def run(batch: int) -> int:
        time.sleep(0.002 * (batch % 3))  # later ones end first
        return batch * batch

    assert list(in_streams(run, range(50))) == [i * i for i in range(50)]


def test_batches_run_at_once_each_with_its_share_of_the_threads() -> None:
    together = threading.Barrier(4, timeout=10)

    def run(_: int) -> int:
        together.wait()  # four at a time, or it breaks
        return torch.get_num_threads()

    assert list(in_streams(run, range(8))) == [1] * 8
    assert torch.get_num_threads() == 4


@pytest.mark.parametrize(("num_threads", "streams", "share"), [(1, 1, 1), (3, 3, 1), (20, 8, 2)])
def test_threads_are_shared_out(num_threads: int, streams: int, share: int) -> None:
    torch.set_num_threads(num_threads)
    seen: set[int] = set()

    def run(_: int) -> int:
        seen.add(threading.get_ident())
        time.sleep(0.001)
        return torch.get_num_threads()

    assert set(in_streams(run, range(40))) == {share}
    assert len(seen) == streams
    assert torch.get_num_threads() == num_threads


def test_no_batches_give_nothing() -> None:
    assert list(in_streams(abs, [])) == []


def test_an_error_comes_in_its_turn_and_ends_the_rest() -> None:
    ran = []

    def run(batch: int) -> int:
        ran.append(batch)
        if batch == 5:
            raise ValueError("the fifth")
        return batch

    results = in_streams(run, range(10_000))
    assert [next(results) for _ in range(5)] == list(range(5))
    with pytest.raises(ValueError, match="the fifth"):
        next(results)
    assert max(ran) < 50
    assert torch.get_num_threads() == 4


def test_an_error_of_the_source_is_raised_and_nothing_is_left_running() -> None:
    def batches() -> Iterator[int]:
        yield from range(3)
        raise OSError("no more")

    with pytest.raises(OSError, match="no more"):
        list(in_streams(abs, batches()))
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("tower")]


def test_who_stops_early_gets_the_threads_back() -> None:
    results = in_streams(abs, range(10_000))
    assert next(results) == 0
    results.close()
    assert torch.get_num_threads() == 4
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("tower")]
