"""Intervals by the bootstrap (Efron 1979): how far a figure would move with other concepts of the same kind.

Concepts are drawn, not queries: all queries of a concept are in a resample as often as it is drawn, since two drawings
of one thing say less than drawings of two. The interval is that of the resampled figures' percentiles.
Shapes: Q queries, K concepts, F figures, B resamples of a block.
"""

from __future__ import annotations

import msgspec
import numpy as np
from numpy.typing import NDArray

_BLOCK_CELLS = 1 << 22  # counts held at a time, 32 MB


class Resampling(msgspec.Struct, frozen=True):
    """How intervals were made: resamples by concept, their seed, and the share of them that an interval holds."""

    num_resamples: int = 1000
    seed: int = 0
    level: float = 0.95


class Interval(msgspec.Struct, frozen=True):
    """Where a figure lies in the middle 95% of the resamples."""

    low: float
    high: float


class Difference(msgspec.Struct, frozen=True):
    """How far a figure of the model lies above that of the linear map, with its interval over the same resamples."""

    value: float
    low: float
    high: float


def intervals(values: NDArray[np.float64], concepts: NDArray[np.int64], resampling: Resampling) -> list[Interval]:
    """Return the interval of the mean over queries of each column of values (Q, F); `concepts` (Q,) are numbers.

    The same concepts and resampling draw the same resamples: the intervals of two columns' differences are paired.
    Raises ValueError for no queries.
    """
    if not len(values):
        raise ValueError("there are no queries, so no interval is defined. Look at the split's size.")
    _, numbers = np.unique(concepts, return_inverse=True)
    num_concepts = int(numbers.max()) + 1
    sums = np.stack([np.bincount(numbers, column) for column in (np.ones(len(values)), *values.T)], axis=1)  # (K, 1+F)
    generator = np.random.default_rng(resampling.seed)
    at_once = max(1, _BLOCK_CELLS // num_concepts)
    means = []
    for start in range(0, resampling.num_resamples, at_once):
        num_drawn = min(at_once, resampling.num_resamples - start)
        drawn = generator.integers(num_concepts, size=(num_drawn, num_concepts))  # (B, K)
        drawn += num_concepts * np.arange(num_drawn)[:, None]
        counts = np.bincount(drawn.ravel(), minlength=drawn.size).reshape(drawn.shape)  # (B, K)
        of_resamples = counts @ sums  # (B, 1 + F)
        means.append(of_resamples[:, 1:] / of_resamples[:, :1])
    tail = (1 - resampling.level) / 2
    low, high = np.quantile(np.concatenate(means), [tail, 1 - tail], axis=0)  # (F,) each
    return [Interval(float(a), float(b)) for a, b in zip(low, high, strict=True)]
