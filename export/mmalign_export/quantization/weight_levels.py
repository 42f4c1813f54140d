"""How finely weights are rounded: to eight signed bits, or to seven where this processor cuts off sums of eight."""

from __future__ import annotations

from mmalign_runtime.engine.eight_bits import SEVEN_BITS, saturates

EIGHT_BITS = 127


def largest_level() -> int:
    """Return the largest level of a weight; the smallest is its negative."""
    return SEVEN_BITS if saturates() else EIGHT_BITS
