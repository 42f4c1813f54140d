"""What a quantized tower may lose: points of recall, and cosine, written as "recall@1=0.5,cosine=0.999"."""

from __future__ import annotations

import re
from typing import Annotated

import msgspec

from mmalign.retrieval import RECALL_AT, Recall
from mmalign_export.errors import QuantizationError

LEAST_COSINE = 0.995
# One question of 200 is 0.5 points, whatever the last digit of 100 * (0.71 - 0.705) says.
_ROUNDING = 1e-6

_WRITTEN = re.compile(r"(recall@(?:1|5|10)|cosine)=(\d+(?:\.\d+)?)")


class Budget(msgspec.Struct, frozen=True):
    """Points of recall@k (hundredths) that may be lost, by k, in either direction; the least mean cosine to float32.

    The cosine sees what recall on a few hundred questions is too coarse for, so it has a floor where none is asked for.
    """

    points: dict[int, float]
    mean_cosine: Annotated[float, msgspec.Meta(ge=0, le=1)] = LEAST_COSINE

    def allows(self, losses: dict[int, float], mean_cosine: float) -> bool:
        """Whether losses in points, by k, and a mean cosine are inside."""
        is_near = mean_cosine >= self.mean_cosine
        return is_near and all(losses[k] <= points + _ROUNDING for k, points in self.points.items())

    def __str__(self) -> str:
        terms = [f"recall@{k}={points:g}" for k, points in self.points.items()]
        return ",".join([*terms, f"cosine={self.mean_cosine:g}"])


def parse_budget(written: str) -> Budget:
    """Read a budget. Raises QuantizationError when it is none."""
    points: dict[int, float] = {}
    mean_cosine = LEAST_COSINE
    seen: set[str] = set()
    for term in written.split(","):
        match = _WRITTEN.fullmatch(term.strip())
        if match is None:
            reason = f"budget {term.strip()!r} is not known; expected terms such as recall@1=0.5 or cosine=0.999"
            raise QuantizationError(f"{reason}, joined by commas.")
        if match[1] in seen:
            raise QuantizationError(f"budget {written!r} names {match[1]} twice. Give it once.")
        seen.add(match[1])
        if match[1] == "cosine":
            mean_cosine = float(match[2])
        else:
            points[int(match[1].partition("@")[2])] = float(match[2])
    if mean_cosine > 1:
        raise QuantizationError(f"budget cosine={mean_cosine:g}: a cosine is at most 1. Did you mean 0.999?")
    return Budget(points, mean_cosine)


def lost_points(before: tuple[Recall, Recall], after: tuple[Recall, Recall]) -> dict[int, float]:
    """Return by k the points of recall that were lost in the worse of two directions; less than 0 where both gained."""
    return {
        k: 100 * max(old.shares()[at] - new.shares()[at] for old, new in zip(before, after, strict=True))
        for at, k in enumerate(RECALL_AT)
    }
