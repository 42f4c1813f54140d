from __future__ import annotations

from mmalign.seeds import Stream, seed_of


def test_seeds_are_the_same_everywhere() -> None:
    assert seed_of(0) == 872845860
    assert seed_of(7, Stream.CAPTION) == seed_of(7, 3)


def test_where_a_number_ends_counts() -> None:
    assert len({seed_of(1, 23), seed_of(12, 3), seed_of(123), seed_of(3, 12)}) == 4
