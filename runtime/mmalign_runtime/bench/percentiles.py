"""Percentiles of a latency, the form in which every part of a measurement gives it."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import numpy as np


class Percentiles(msgspec.Struct, frozen=True, kw_only=True):
    """Of how many samples, and their percentiles in milliseconds. Below 100 samples p99 says little but the largest."""

    num_samples: int
    p50_ms: float
    p90_ms: float
    p99_ms: float


def percentiles(seconds: Sequence[float]) -> Percentiles:
    """Return the percentiles of at least one duration, interpolated between neighbours."""
    p50, p90, p99 = np.percentile(np.array(seconds) * 1000, (50, 90, 99))
    return Percentiles(num_samples=len(seconds), p50_ms=float(p50), p90_ms=float(p90), p99_ms=float(p99))
