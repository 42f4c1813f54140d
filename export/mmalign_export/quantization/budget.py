"""What a quantized tower may lose: points of recall, and cosine, written as "recall@1=0.5,cosine=0.999,golden=0.97"."""

from __future__ import annotations

import re
from typing import Annotated

import msgspec

from mmalign.figures.retrieval import RECALL_AT, Recall
from mmalign_export.errors import QuantizationError
from mmalign_runtime.spec import LEAST_GOLDEN_COSINE

LEAST_COSINE = 0.995
# One question of 200 is 0.5 points, whatever the last digit of 100 * (0.71 - 0.705) says.
_ROUNDING = 1e-6
# Of the golden cases' loss: the mean's over the lowest's.
_MEAN_SHARE = 1 / 8

_WRITTEN = re.compile(r"(recall@(?:1|5|10)|cosine|golden)=(\d+(?:\.\d+)?)")


class Budget(msgspec.Struct, frozen=True):
    """Points of recall@k (hundredths) that may be lost, by k, in either direction; the least mean cosine to float32.

    The cosine sees what recall on a few hundred questions is too coarse for, so it has a floor where none is asked for.
    So has `golden_cosine`, the lowest of any golden case to PyTorch: those are the photographs and texts of a kind that
    the pairs to measure on may lack.

    Their mean may lose an eighth of what the lowest may: on the demo, towers whose golden mean was 0.9946 and 0.9956,
    and whose lowest was 0.976 and more, had less than 0.99 on average of 96 other photographs.
    """

    points: dict[int, float]
    mean_cosine: Annotated[float, msgspec.Meta(ge=0, le=1)] = LEAST_COSINE
    golden_cosine: Annotated[float, msgspec.Meta(ge=0, le=1)] = LEAST_GOLDEN_COSINE

    def allows(self, losses: dict[int, float], mean_cosine: float) -> bool:
        """Whether losses in points, by k, and a mean cosine are inside. The golden cases are judged by their own."""
        is_near = mean_cosine >= self.mean_cosine
        return is_near and all(losses[k] <= points + _ROUNDING for k, points in self.points.items())

    def allows_golden(self, lowest: float, mean: float) -> bool:
        """Whether the golden cases' lowest and mean cosine to PyTorch are inside."""
        return lowest >= self.golden_cosine and 1 - mean <= _MEAN_SHARE * (1 - self.golden_cosine) + _ROUNDING

    def __str__(self) -> str:
        terms = [f"recall@{k}={points:g}" for k, points in self.points.items()]
        return ",".join([*terms, f"cosine={self.mean_cosine:g}", f"golden={self.golden_cosine:g}"])


def parse_budget(written: str) -> Budget:
    """Read a budget as it is written on the command line.

    Args:
        written: Terms joined by commas: points of recall that may be lost ("recall@1=0.5"), the least mean cosine to
            float32 ("cosine=0.999"), the least cosine of any golden case ("golden=0.97").

    Returns:
        The budget; cosines that are not written have their defaults.

    Raises:
        QuantizationError: A term is not known, stands twice, or has a value that is not possible.

    Example:
        >>> str(parse_budget("recall@1=0.5"))
        'recall@1=0.5,cosine=0.995,golden=0.97'
    """
    points: dict[int, float] = {}
    cosines = {"cosine": LEAST_COSINE, "golden": LEAST_GOLDEN_COSINE}
    seen: set[str] = set()
    for term in written.split(","):
        match = _WRITTEN.fullmatch(term.strip())
        if match is None:
            reason = f"budget {term.strip()!r} is not known; expected terms such as recall@1=0.5, cosine=0.999"
            raise QuantizationError(f"{reason} or golden=0.97, joined by commas.")
        if match[1] in seen:
            raise QuantizationError(f"budget {written!r} names {match[1]} twice. Give it once.")
        seen.add(match[1])
        if match[1] in cosines:
            cosines[match[1]] = float(match[2])
        else:
            points[int(match[1].partition("@")[2])] = float(match[2])
    for name, value in cosines.items():
        if value > 1:
            raise QuantizationError(f"budget {name}={value:g}: a cosine is at most 1. Did you mean 0.999?")
    return Budget(points, cosines["cosine"], cosines["golden"])


def lost_points(before: tuple[Recall, Recall], after: tuple[Recall, Recall]) -> dict[int, float]:
    """Return by k the points of recall that were lost in the worse of two directions; less than 0 where both gained."""
    return {
        k: 100 * max(old.shares()[at] - new.shares()[at] for old, new in zip(before, after, strict=True))
        for at, k in enumerate(RECALL_AT)
    }
