from pathlib import Path

import pytest

from mmalign.data import Origin, Pair


@pytest.mark.parametrize(
    ("origin", "text"),
    [
        (Origin(Path("a.csv"), line=3), "a.csv, line 3"),
        (Origin(Path("a.parquet"), row=0), "a.parquet, row 0"),
        (Origin(Path("a.tar"), member="0001"), "a.tar, member 0001"),
        (Origin(Path("cat.jpg")), "cat.jpg"),
    ],
)
def test_an_origin_reads_as_the_place_to_look_at(origin: Origin, text: str) -> None:
    assert str(origin) == text


def test_a_pair_is_a_value() -> None:
    pair = Pair(b"x", ("a cat",), "1", Origin(Path("a.csv"), line=2))
    assert pair == Pair(b"x", ("a cat",), "1", Origin(Path("a.csv"), line=2))
    with pytest.raises(AttributeError, match="immutable"):
        pair.concept = "2"  # type: ignore[misc]
