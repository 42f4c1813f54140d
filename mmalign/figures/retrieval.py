"""Retrieval metrics that count several right answers a query correctly, in memory that does not grow with Q x C.

Shapes: Q queries, C candidates, R rows of a chunk, D embedding.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import msgspec
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

RECALL_AT = (1, 5, 10)
# Two cosines of float32 vectors that differ by less may be the same number: sums of products of 256 to 1024 components,
# taken in another order, were seen to differ by up to 4e-7. A tie must not be broken by where a candidate stands.
TIE = 1e-6
_HALF = 0.5 - 1e-12  # one half, less what rounding takes off a product of many factors
_CHUNK_CELLS = 1 << 22  # scores held at a time, 16 MB: with fewer, products of few rows take twice the time


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


class Relevance:
    """Which candidates are right for which queries: those that share a label with them.

    Held as labels, one tuple of numbers an item, and not as a (Q, C) matrix.
    """

    def __init__(self, query_labels: Sequence[tuple[int, ...]], candidate_labels: Sequence[tuple[int, ...]]) -> None:
        self.query_labels = query_labels
        self.candidate_labels = candidate_labels
        labels = np.array([label for item in candidate_labels for label in item], np.int64)
        columns = np.repeat(np.arange(len(candidate_labels)), [len(item) for item in candidate_labels])
        order = np.argsort(labels, kind="stable")
        self._labels, self._columns = labels[order], columns[order]

    def reversed(self) -> Relevance:
        """Return the same of the candidates as queries."""
        return Relevance(self.candidate_labels, self.query_labels)

    def right(self, query: int) -> NDArray[np.int64]:
        """Return the numbers of the candidates that are right for a query, in order, each once."""
        labels = self.query_labels[query]
        parts = [self._columns[slice(*np.searchsorted(self._labels, [label, label + 1]))] for label in labels]
        return parts[0] if len(parts) == 1 else np.unique(np.concatenate([*parts, self._columns[:0]]))

    def right_of(self, start: int, num_queries: int) -> list[NDArray[np.int64]]:
        """Return `right` of some queries from one on. Raises ValueError where one has no right answer."""
        right = [self.right(query) for query in range(start, start + num_queries)]
        if not all(map(len, right)):
            raise ValueError("a query has no right answer among the candidates, so its recall is not defined.")
        return right


def recall(queries: Tensor, candidates: Tensor, relevant: Relevance) -> Recall:
    """Return the recall of `queries` (Q, D) among `candidates` (C, D), unit vectors; the highest cosine is nearest.

    Raises ValueError where there are no queries, and as `best_ranks` does.
    """
    if not len(queries):
        raise ValueError("there are no queries, so recall is not defined. Look at the split's size.")
    return recall_of_ranks(best_ranks(queries, candidates, relevant))


def recall_both_ways(images: Tensor, texts: Tensor, relevant: Relevance) -> tuple[Recall, Recall]:
    """Return recall from image to text and from text to image, of unit vectors (N, D) and (M, D). Raises likewise."""
    return recall(images, texts, relevant), recall(texts, images, relevant.reversed())


def is_finite(vectors: Tensor) -> bool:
    """Say whether every component of unit vectors (N, D) is a finite number, without a copy as large as they are."""
    return bool(
        vectors.sum().isfinite()
    )  # NaN and infinities stay in a sum; components of at most 1 do not overflow it


def similarity_blocks(queries: Tensor, candidates: Tensor) -> Iterator[tuple[int, Tensor]]:
    """Yield the number of a first query, and the scores (R, C) of it and the next ones against all candidates.

    The scores of a block are overwritten by the next. Raises ValueError when a vector is not finite: NaN compares as
    false with everything, and would rank first.
    """
    if not (is_finite(queries) and is_finite(candidates)):
        raise ValueError("a vector is not finite, so ranks are not defined. Look for NaN in the embeddings.")
    num_rows = max(1, _CHUNK_CELLS // max(1, len(candidates)))
    # One buffer for all blocks: what is made anew for each is not given back whole, 10 GB for 100,000 x 100,000.
    buffer = queries.new_empty(min(num_rows, len(queries)), len(candidates))  # (R, C)
    for start in range(0, len(queries), num_rows):
        chunk = queries[start : start + num_rows]
        yield start, torch.mm(chunk, candidates.T, out=buffer[: len(chunk)])  # (R, C)


def best_ranks(queries: Tensor, candidates: Tensor, relevant: Relevance) -> Tensor:
    """Return each query's rank, (Q,) float64 on the CPU: that of its best right answer, counted from 1.

    Scores within TIE of it rank behind wrong answers, so that a constant embedding earns nothing. Raises ValueError
    when a query has no right answer at all, or a vector is not finite.
    """
    ranks = torch.empty(len(queries), dtype=torch.float64)  # (Q,)
    for start, similarity in similarity_blocks(queries, candidates):
        right = relevant.right_of(start, len(similarity))
        ranks[start : start + len(similarity)] = _ranks(similarity, right)
    return ranks


def _ranks(similarity: Tensor, right: Sequence[NDArray[np.int64]]) -> Tensor:
    """Return the ranks, (R,), of queries with scores (R, C), given the numbers of each one's right answers.

    Overwrites the scores.
    """
    rows = torch.arange(len(right)).repeat_interleave(torch.tensor([len(columns) for columns in right]))
    columns = torch.from_numpy(np.concatenate(right))
    scores = similarity[rows, columns].cpu()  # of right answers, row after row
    best = torch.full((len(right),), -math.inf).scatter_reduce(0, rows, scores, "amax")  # (R,)
    similarity[rows, columns] = -math.inf  # right answers do not push each other down
    num_ahead = _count(similarity.ge_((best - TIE)[:, None].to(similarity.device)))  # (R,)
    return (num_ahead + 1).double()


def _count(flags: Tensor) -> Tensor:
    """Count what is not 0 in each row of (R, C)."""
    if flags.device.type == "cpu":  # where numpy counts several times as fast as torch
        return torch.from_numpy(np.count_nonzero(flags.numpy(), axis=1))
    return flags.count_nonzero(dim=1).cpu()


def chance_recall(relevant: Relevance) -> Recall:
    """Return what random ranking is expected to give: hypergeometric, averaged over queries; the rank is its median."""
    counts = [len(relevant.right(query)) for query in range(len(relevant.query_labels))]
    chance = {count: _chance(len(relevant.candidate_labels), count) for count in set(counts)}
    shares = torch.tensor([chance[count][0] for count in counts], dtype=torch.float64).mean(dim=0)  # (3,)
    medians = torch.tensor([chance[count][1] for count in counts], dtype=torch.float64)
    return _from_shares(shares.tolist(), _median(medians))


def _chance(num_candidates: int, num_right: int) -> tuple[list[float], int]:
    """Return the probabilities that a random order shows a right answer by rank 1, 5 and 10, and the median rank."""
    missed, found, median = 1.0, list[float](), 0
    while len(found) < min(max(RECALL_AT), num_candidates) or not median:
        num_shown = len(found)
        missed *= (num_candidates - num_right - num_shown) / (num_candidates - num_shown)  # 0 stays 0
        found.append(1 - missed)
        if not median and found[-1] >= _HALF:
            median = len(found)
    return [found[min(k, num_candidates) - 1] for k in RECALL_AT], median


def recall_of_ranks(ranks: Tensor) -> Recall:
    """Return the recall that ranks (Q,) of best right answers come to."""
    return _from_shares([float((ranks <= k).double().mean()) for k in RECALL_AT], _median(ranks))


def _from_shares(shares: list[float], median_rank: float) -> Recall:
    return Recall(shares[0], shares[1], shares[2], median_rank)


def _median(values: Tensor) -> float:
    return float(values.quantile(0.5))
