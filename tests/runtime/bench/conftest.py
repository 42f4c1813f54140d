"""A clock that moves when it is told to, so that laps can be compared with numbers worked out by hand."""

from __future__ import annotations

import pytest


class FakeClock:
    """Time passes by sleeping, which stands for work."""

    def __init__(self) -> None:
        self.time_s = 100.0

    def now(self) -> float:
        return self.time_s

    def sleep(self, seconds: float) -> None:
        self.time_s += seconds


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()
