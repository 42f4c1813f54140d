"""Where the bound on a vector's length lies, by numbers written here: 0.005 either way."""

from __future__ import annotations

import numpy as np
import pytest

from mmalign_runtime.errors import EngineError
from mmalign_runtime.unit_vectors import UnitVectors


def of_length(length: float, at: int = 1) -> np.ndarray:
    """Three vectors of unit length, but for one."""
    vectors = np.full((3, 4), 0.5, np.float32)
    vectors[at] *= np.float32(length)
    return vectors


@pytest.mark.parametrize("length", [0.9951, 1.0, 1.0049])
@pytest.mark.parametrize("at", [0, 2])
def test_a_length_is_off_by_five_thousandths_at_most(length: float, at: int) -> None:
    vectors = of_length(length, at)
    assert UnitVectors(4, "the tower")(vectors) is vectors


@pytest.mark.parametrize("length", [0.9949, 1.0051, 0.0, float("nan"), float("inf")])
@pytest.mark.parametrize("at", [0, 2])
def test_a_length_that_is_off_by_more_is_an_error(length: float, at: int) -> None:
    with pytest.raises(EngineError, match=r"the tower gave a vector whose length is off by .*, expected 1.*verify"):
        UnitVectors(4, "the tower")(of_length(length, at))


def test_how_far_it_is_off_is_said() -> None:
    with pytest.raises(EngineError, match=r"off by 0\.0062, expected 1"):
        UnitVectors(4, "the tower")(of_length(1.0062))


@pytest.mark.parametrize(
    ("vectors", "seen"),
    [
        (np.full(4, 0.5, np.float32), r"\(4,\) float32"),
        (np.full((1, 1, 4), 0.5, np.float32), r"\(1, 1, 4\) float32"),
        (np.full((2, 3), 0.5, np.float32), r"\(2, 3\) float32"),
        (np.full((2, 5), 0.4, np.float32), r"\(2, 5\) float32"),
        (np.full((4, 1), 1.0, np.float32), r"\(4, 1\) float32"),
        (np.full((2, 4), 0.5, np.float64), r"\(2, 4\) float64"),
        (np.full((2, 4), 0.5, np.float16), r"\(2, 4\) float16"),
    ],
)
def test_another_shape_or_type_is_an_error(vectors: np.ndarray, seen: str) -> None:
    with pytest.raises(EngineError, match=rf"gave {seen}, expected \(B, 4\) float32"):
        UnitVectors(4, "the tower")(vectors)


def test_no_vector_is_none_that_is_wrong() -> None:
    assert UnitVectors(4, "the tower")(np.empty((0, 4), np.float32)).shape == (0, 4)
