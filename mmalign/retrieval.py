"""Retrieval metrics that count several right answers a query correctly.

Shapes: Q queries, C candidates.
"""

from __future__ import annotations

import bisect
import math

import msgspec
import torch
from torch import Tensor

RECALL_AT = (1, 5, 10)
_HALF = 0.5 - 1e-12  # one half, less what rounding takes off a product of many factors


class Recall(msgspec.Struct, frozen=True):
    """Share of queries, 0..1, with a right answer among the first 1, 5 and 10, and the median rank of the best one."""

    at_1: float
    at_5: float
    at_10: float
    median_rank: float

    def shares(self) -> tuple[float, float, float]:
        """Return the three recalls."""
        return self.at_1, self.at_5, self.at_10

    def mean(self) -> float:
        """Return the mean of the three recalls."""
        return sum(self.shares()) / len(RECALL_AT)


def recall(similarity: Tensor, relevant: Tensor) -> Recall:
    """Return the recall of `similarity` (Q, C), higher is nearer, given `relevant` (Q, C) bool.

    A query's rank is that of its best right answer, counted from 1; equal scores rank behind wrong answers, so that a
    constant embedding earns nothing. Raises ValueError when a query has no right answer at all, or a score is NaN: it
    compares as false with everything, and would rank first.
    """
    if not bool(relevant.any(dim=1).all()):
        raise ValueError("a query has no right answer among the candidates, so its recall is not defined.")
    if bool(similarity.isnan().any()):
        raise ValueError("a score is NaN, so its rank is not defined. Look for NaN in the embeddings.")
    best = similarity.masked_fill(~relevant, -math.inf).amax(dim=1, keepdim=True)  # (Q, 1)
    ahead = ((similarity >= best) & ~relevant).sum(dim=1)  # (Q,)
    ranks = (ahead + 1).double()
    return _from_shares([float((ranks <= k).double().mean()) for k in RECALL_AT], _median(ranks))


def chance_recall(relevant: Tensor) -> Recall:
    """Return what random ranking is expected to give: hypergeometric, averaged over queries; the rank is its median."""
    num_candidates = relevant.shape[1]
    counts: list[int] = relevant.sum(dim=1).tolist()  # (Q,)
    by_count = {count: _chance_by_rank(num_candidates, count) for count in set(counts)}
    at_k = [[by_count[count][min(k, num_candidates) - 1] for k in RECALL_AT] for count in counts]
    medians = [bisect.bisect_left(by_count[count], _HALF) + 1 for count in counts]
    shares = torch.tensor(at_k, dtype=torch.float64).mean(dim=0)  # (3,)
    return _from_shares(shares.tolist(), _median(torch.tensor(medians, dtype=torch.float64)))


def _chance_by_rank(num_candidates: int, num_right: int) -> list[float]:
    """Return the probability that a random order has shown a right answer by rank 1, 2, ... `num_candidates`."""
    missed, found = 1.0, []
    for rank in range(1, num_candidates + 1):
        missed *= max(0, num_candidates - num_right - rank + 1) / (num_candidates - rank + 1)
        found.append(1 - missed)
    return found


def _from_shares(shares: list[float], median_rank: float) -> Recall:
    return Recall(shares[0], shares[1], shares[2], median_rank)


def _median(values: Tensor) -> float:
    return float(values.quantile(0.5))
