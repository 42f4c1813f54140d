"""Percentiles, and ratios of calls that were neighbours in time."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import numpy as np
from numpy.typing import ArrayLike, NDArray


class Spread(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A median and how far the middle four fifths reach."""

    p10: float
    p50: float
    p90: float


def spread(values: ArrayLike) -> Spread:
    """Return the 10th, 50th and 90th percentile."""
    return Spread(*(float(value) for value in np.percentile(np.asarray(values), (10, 50, 90))))


def median_ms(seconds: Sequence[float]) -> float:
    """Return the median in milliseconds, to the microsecond."""
    return round(float(np.median(seconds)) * 1000, 3)


def paired_speedups(baseline_s: Sequence[float], engine_s: Sequence[float]) -> NDArray[np.float64]:
    """Return baseline time by engine time, turn by turn.

    Paired, since what slows a machine down for a second slows both calls of one turn; two medians taken apart keep it.
    Raises ValueError when the turns do not match.
    """
    if len(baseline_s) != len(engine_s) or not baseline_s:
        raise ValueError(f"seen {len(baseline_s)} and {len(engine_s)} turns, expected as many of both, at least one.")
    return np.array(baseline_s, np.float64) / np.array(engine_s, np.float64)
