import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from mmalign_runtime.once import Once


def test_many_callers_get_the_one_value_that_was_made() -> None:
    made: list[object] = []

    def make() -> object:
        time.sleep(0.01)
        made.append(object())
        return made[-1]

    once, start = Once(make), threading.Barrier(8)
    assert once.made is None

    def ask(_: int) -> object:
        start.wait()
        return once.get()

    with ThreadPoolExecutor(8) as pool:
        found = set(pool.map(ask, range(8)))
    assert found == set(made) == {once.made}


def test_a_making_that_raises_is_tried_again() -> None:
    answers = iter([ValueError("not yet"), None])

    def make() -> int:
        if error := next(answers):
            raise error
        return 7

    once = Once(make)
    with pytest.raises(ValueError, match="not yet"):
        once.get()
    assert once.get() == 7
