import threading
import time
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from mmalign_runtime import Embedder
from mmalign_runtime.engine.pool import Turnstile, thread_pool

TEXTS = ["a dog", "", "a red house in the big tree " * 20, "café"]


def test_one_caller_at_a_time_in_the_order_of_arrival() -> None:
    turnstile, order, inside = Turnstile(1), [], []

    def call(number: int) -> None:
        with turnstile.turn():
            inside.append(1)
            assert len(inside) == 1
            order.append(number)
            time.sleep(0.002)
            inside.pop()

    with turnstile.turn():
        threads = [threading.Thread(target=call, args=(number,)) for number in range(8)]
        for thread in threads:
            waiting = len(turnstile._waiting)
            thread.start()
            while len(turnstile._waiting) == waiting:
                time.sleep(0.0005)
    for thread in threads:
        thread.join()
    assert all(left < right for left, right in pairwise(order))
    assert len(order) == len(threads)


def test_as_many_as_it_is_wide_go_through_at_once() -> None:
    turnstile, together = Turnstile(3), threading.Barrier(3)

    def call(_: int) -> int:
        with turnstile.turn():
            return together.wait(timeout=10)

    with ThreadPoolExecutor(6) as pool:
        assert sorted(pool.map(call, range(6))) == [0, 0, 1, 1, 2, 2]


def test_an_error_inside_passes_the_turn_on() -> None:
    turnstile = Turnstile(1)
    with pytest.raises(ZeroDivisionError, match="zero"), turnstile.turn():
        _ = 1 / 0
    with turnstile.turn():
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


def test_all_runs_of_a_process_share_one_door(tiny_bundle: Path) -> None:
    first, second = (Embedder.load(tiny_bundle, provider="cpu", num_threads=3) for _ in range(2))
    assert first.options.pool.turnstile is second.options.pool.turnstile
    assert first.text.session.options.pool.turnstile is first.image.session.options.pool.turnstile


def _num_os_threads() -> int:
    tasks = Path("/proc/self/task")
    return len(list(tasks.iterdir())) if tasks.is_dir() else threading.active_count()
