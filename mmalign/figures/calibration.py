"""Calibration: whether answers that are given with a probability of 0.7 are right seven times in ten.

The expected calibration error (Naeini et al. 2015) with bins of equal mass (Nguyen and O'Connor 2015), which every
query weighs alike: queries are ordered by confidence and cut into 15 bins of as many queries each, to within one; the
error is the mean, over queries, of how far their bin's accuracy and mean confidence lie apart. With few queries in a
bin it is above 0 by chance alone, even for a model that is calibrated.
"""

from __future__ import annotations

import msgspec
import numpy as np
from numpy.typing import NDArray

NUM_BINS = 15


class ReliabilityBin(msgspec.Struct, frozen=True):
    """Queries of about the same confidence: its mean and the share that was answered right, 0..1 both."""

    confidence: float
    accuracy: float
    num_queries: int


class Calibration(msgspec.Struct, frozen=True):
    """The expected calibration error, 0..1, and the bins it is made of, the least confident first."""

    expected_calibration_error: float
    bins: tuple[ReliabilityBin, ...]


def calibration(confidence: NDArray[np.float64], is_right: NDArray[np.bool_]) -> Calibration:
    """Return the calibration of answers (Q,), each with the probability it was given, 0..1, and whether it was right.

    Fewer bins than 15 where there are fewer queries. Raises ValueError for none.
    """
    if not len(confidence):
        raise ValueError("there are no answers, so calibration is not defined. Look at the split's size.")
    order = np.argsort(confidence, kind="stable")
    cut = np.array_split(order, min(NUM_BINS, len(order)))
    bins = tuple(ReliabilityBin(float(confidence[b].mean()), float(is_right[b].mean()), len(b)) for b in cut)
    gaps = sum(each.num_queries * abs(each.accuracy - each.confidence) for each in bins)
    return Calibration(gaps / len(order), bins)
