"""Weights in eight bits: what a product gives moves least, on rows like those that it was shown."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from mmalign_export.quantization.activations import Activations
from mmalign_export.quantization.rounding import ColumnRounder, rounded_columns

NUM_CHANNELS, NUM_COLUMNS = 96, 40


def _rows(count: int, seed: int) -> NDArray[np.float32]:
    """Return rows whose channels move together, a few of them far larger than the others."""
    mixing = np.random.default_rng(0).normal(size=(8, NUM_CHANNELS))
    rng = np.random.default_rng(seed)
    rows = rng.normal(size=(count, 8)) @ mixing + 0.3 * rng.normal(size=(count, NUM_CHANNELS)) + 0.5
    return (rows * np.where(np.arange(NUM_CHANNELS) % 24 == 0, 20, 1)).astype(np.float32)


@pytest.fixture
def weight() -> NDArray[np.float32]:
    return np.random.default_rng(2).normal(size=(NUM_CHANNELS, NUM_COLUMNS)).astype(np.float32)


def _round(weight: NDArray[np.float32], rows: NDArray[np.float32]) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    found = ColumnRounder({"x": Activations(rows.min(0), rows.max(0), rows, 2)}).round(
        weight, "x", np.ones(len(weight), np.float32)
    )
    return found.levels, found.steps


def test_a_product_of_new_rows_moves_less_than_by_rounding_to_the_nearest(weight: NDArray[np.float32]) -> None:
    levels, steps = _round(weight, _rows(200, 3))
    nearest = np.round(weight / steps)
    new = _rows(500, 4)
    ours, theirs = (float(np.square(new @ (each * steps - weight)).mean()) for each in (levels, nearest))
    assert ours < 0.35 * theirs
    assert np.abs(levels - nearest).max() < 8


def test_channels_that_do_not_move_together_are_rounded_to_the_nearest(weight: NDArray[np.float32]) -> None:
    levels, steps = _round(weight, np.eye(NUM_CHANNELS, dtype=np.float32))
    np.testing.assert_array_equal(levels, np.round(weight / steps))


def test_fewer_rows_than_channels_and_channels_without_a_value_are_rounded(weight: NDArray[np.float32]) -> None:
    rows = _rows(3, 5)
    rows[:, :10] = 0
    levels, steps = _round(weight, rows)
    assert np.abs(levels).max() <= 127
    assert (
        np.abs(rows @ (levels * steps - weight)).max()
        < np.abs(rows @ (np.round(weight / steps) * steps - weight)).max()
    )
    still, _ = _round(weight, np.zeros_like(rows))
    np.testing.assert_array_equal(still, np.round(weight / steps))


def test_a_column_of_zeros_stays_zero(weight: NDArray[np.float32]) -> None:
    weight[:, 3] = 0
    levels, steps = _round(weight, _rows(50, 6))
    assert not levels[:, 3].any()
    assert np.isfinite(steps).all()
    assert (steps > 0).all()


def test_what_was_rounded_once_is_known_and_another_scale_is_not(
    weight: NDArray[np.float32], monkeypatch: pytest.MonkeyPatch
) -> None:
    rows, calls = _rows(50, 7), []

    def counted(*args: NDArray[np.float32]) -> NDArray[np.int8]:
        calls.append(args)
        return rounded_columns(*args)

    monkeypatch.setattr("mmalign_export.quantization.rounding.rounded_columns", counted)
    rounder = ColumnRounder({"x": Activations(rows.min(0), rows.max(0), rows, 2)})
    ones = np.ones(NUM_CHANNELS, np.float32)
    first, again, other = (rounder.round(weight, "x", scales) for scales in (ones, ones, 2 * ones))
    assert first is again
    assert len(calls) == 2
    np.testing.assert_array_equal(calls[1][2], rows / 2)
    assert other is not first
