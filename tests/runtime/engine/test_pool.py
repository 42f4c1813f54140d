import threading
import time
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from mmalign_runtime import Embedder
from mmalign_runtime.engine import pool as pool_module
from mmalign_runtime.engine.pool import FifoSemaphore, thread_pool

TEXTS = ["a dog", "", "a red house in the big tree " * 20, "café"]


def test_one_caller_at_a_time_in_the_order_of_arrival() -> None:
    semaphore, order, inside = FifoSemaphore(1), [], []

    def call(number: int) -> None:
        with semaphore.turn():
            inside.append(1)
            assert len(inside) == 1
            order.append(number)
            time.sleep(0.002)
            inside.pop()

    with semaphore.turn():
        threads = [threading.Thread(target=call, args=(number,)) for number in range(8)]
        for thread in threads:
            waiting = len(semaphore._waiting)
            thread.start()
            while len(semaphore._waiting) == waiting:
                time.sleep(0.0005)
    for thread in threads:
        thread.join()
    assert all(left < right for left, right in pairwise(order))
    assert len(order) == len(threads)


def test_as_many_as_it_is_wide_go_through_at_once() -> None:
    semaphore, together = FifoSemaphore(3), threading.Barrier(3)

    def call(_: int) -> int:
        with semaphore.turn():
            return together.wait(timeout=10)

    with ThreadPoolExecutor(6) as pool:
        assert sorted(pool.map(call, range(6))) == [0, 0, 1, 1, 2, 2]


def test_an_error_inside_passes_the_turn_on() -> None:
    semaphore = FifoSemaphore(1)
    with pytest.raises(ZeroDivisionError, match="zero"), semaphore.turn():
        _ = 1 / 0
    with semaphore.turn():
        pass


def test_as_many_runs_go_on_at_once_as_there_are_threads() -> None:
    assert thread_pool(2).num_runs == 2
    assert thread_pool(16).num_runs == 16


@pytest.mark.parametrize("num_callers", [1, 2, 8])
def test_callers_at_once_add_no_threads_and_get_the_same_vectors(embedder: Embedder, num_callers: int) -> None:
    expected = embedder.encode_text(TEXTS)
    pixels = np.random.default_rng(0).integers(0, 256, (50, 70, 3), dtype=np.uint8)
    expected_image = embedder.encode_image([pixels])
    before = _num_os_threads()

    def call(_: int) -> int:
        np.testing.assert_array_equal(embedder.encode_text(TEXTS), expected)
        np.testing.assert_array_equal(embedder.encode_image([pixels]), expected_image)
        return _num_os_threads()

    with ThreadPoolExecutor(num_callers) as pool:
        most = max(pool.map(call, range(4 * num_callers)))
    assert most <= before + num_callers  # the callers themselves, and nobody else


def test_all_runs_of_a_process_wait_for_each_other(tiny_bundle: Path) -> None:
    first, second = (Embedder.load(tiny_bundle, provider="cpu", num_threads=number) for number in (3, 2))
    assert first.options.pool.shared is second.options.pool.shared
    assert first.text.session.options.pool is first.image.session.options.pool
    assert thread_pool(3).own is first.options.pool.own


def test_runs_of_different_threads_share_the_widest_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool_module, "_own", {})
    monkeypatch.setattr(pool_module, "_shared", {})
    one, three = thread_pool(1), thread_pool(3)
    num_inside, most = [0, 0], [0, 0]
    lock = threading.Lock()

    def call(number: int) -> None:
        kind = number % 2
        with (one, three)[kind].turn():
            with lock:
                num_inside[kind] += 1
                most[0], most[1] = max(most[0], num_inside[0]), max(most[1], sum(num_inside))
            time.sleep(0.005)
            with lock:
                num_inside[kind] -= 1

    with ThreadPoolExecutor(12) as callers:
        list(callers.map(call, range(60)))
    assert most == [1, 3]


def test_a_wider_semaphore_lets_those_who_wait_in() -> None:
    semaphore, inside = FifoSemaphore(1), threading.Event()

    def call() -> None:
        with semaphore.turn():
            inside.set()

    with semaphore.turn():
        waiting = threading.Thread(target=call)
        waiting.start()
        assert not inside.wait(0.05)
        semaphore.widen(2)
        assert inside.wait(10)
    waiting.join()
    semaphore.widen(1)
    assert semaphore.width == 2


def _num_os_threads() -> int:
    tasks = Path("/proc/self/task")
    return len(list(tasks.iterdir())) if tasks.is_dir() else threading.active_count()
