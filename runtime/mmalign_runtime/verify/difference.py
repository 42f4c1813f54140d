"""How far vectors are from the ones expected."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import numpy as np
from numpy.typing import NDArray

from mmalign_runtime.spec import Parity
from mmalign_runtime.streaming import Vectors


class Difference(msgspec.Struct, frozen=True):
    """The lowest cosine and the largest difference of a component, over some vectors."""

    cosine: float
    max_abs: float

    def within(self, bounds: Parity) -> bool:
        """Whether both are inside the bounds."""
        return self.cosine >= bounds.cosine_bound and self.max_abs <= bounds.abs_bound


def difference(found: Vectors, expected: Sequence[Sequence[float]] | NDArray[np.float32]) -> Difference:
    """Compare vectors (N, D) row by row; another shape, or a component that is not a number, is as far as can be."""
    reference = np.array(expected, dtype=np.float64)
    if found.shape != reference.shape or not np.isfinite(found).all():
        return Difference(-1.0, float("inf"))
    values = found.astype(np.float64)
    norms = np.linalg.norm(values, axis=1) * np.linalg.norm(reference, axis=1)
    cosines = (values * reference).sum(axis=1) / norms
    return Difference(float(cosines.min(initial=1.0)), float(np.abs(values - reference).max(initial=0.0)))
