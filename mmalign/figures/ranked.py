"""What each query of a retrieval came to: the rank of its best right answer, average precision, nDCG, and confidence.

One pass over the similarities, some rows at a time. A tie never helps: where scores are equal within `retrieval.TIE`, a
candidate that is more relevant stands behind. Shapes: Q queries, C candidates, R rows of a block, P right answers.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mmalign.figures.graded import GradedRelevance
from mmalign.retrieval import TIE, similarity_blocks
from mmalign_runtime.spec import Similarity

NDCG_AT = 10
_MOST_COUNTED = 16  # right answers that are counted ahead of one by one; a sort is quicker for more
_DISCOUNTS = 1 / np.log2(np.arange(2, NDCG_AT + 2))


class Ranked(msgspec.Struct, frozen=True, eq=False):
    """One value a query, (Q,) float64 each.

    `ranks` count from 1; `average_precision` is the mean, over a query's right answers, of the share of right ones
    among the candidates up to each; `ndcg` is nDCG@10 (Jarvelin and Kekalainen 2002) with gains that are the relevances
    of `GradedRelevance` and discounts 1 / log2(1 + rank); `confidence` is the probability of the nearest candidate,
    None where nothing says how to read a cosine.
    """

    ranks: NDArray[np.float64]
    average_precision: NDArray[np.float64]
    ndcg: NDArray[np.float64]
    confidence: NDArray[np.float64] | None = None


def rank(queries: Tensor, candidates: Tensor, graded: GradedRelevance, similarity: Similarity | None = None) -> Ranked:
    """Return what queries (Q, D) come to among candidates (C, D), unit vectors. `similarity` says what a cosine means.

    Raises ValueError when a query has no right answer, or a vector is not finite.
    """
    blocks = []
    for start, scores in similarity_blocks(queries, candidates):
        right = graded.relevant.right_of(start, len(scores))
        ranks, precision = _precision(scores.numpy(), right)
        best, ndcg = _ndcg(start, scores, graded)
        confidence = None if similarity is None else _confidence(scores, best, similarity)  # the last: it overwrites
        blocks.append(Ranked(ranks, precision, ndcg, confidence))
    return Ranked(
        np.concatenate([block.ranks for block in blocks]),
        np.concatenate([block.average_precision for block in blocks]),
        np.concatenate([block.ndcg for block in blocks]),
        None if similarity is None else np.concatenate([block.confidence for block in blocks]),
    )


def _precision(
    scores: NDArray[np.float32], right: Sequence[NDArray[np.int64]]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the ranks of best right answers and the average precisions, (R,) each."""
    ranks, precision = np.empty(len(right)), np.empty(len(right))
    for row, columns in enumerate(right):
        own = np.sort(scores[row, columns])[::-1]  # (P,), best first
        limits = own - np.float32(TIE)
        wrong = _num_from(scores[row], limits) - _num_from(own, limits)
        places = np.arange(1, len(own) + 1)
        ranks[row], precision[row] = wrong[0] + 1, (places / (places + wrong)).mean()
    return ranks, precision


def _num_from(scores: NDArray[np.float32], limits: NDArray[np.float32]) -> NDArray[np.int64]:
    """Return how many scores are at least each of some limits, (P,)."""
    if len(limits) <= _MOST_COUNTED:
        return np.array([np.count_nonzero(scores >= limit) for limit in limits])
    return len(scores) - np.searchsorted(np.sort(scores), limits)


def _ndcg(start: int, scores: Tensor, graded: GradedRelevance) -> tuple[Tensor, NDArray[np.float64]]:
    """Return the best scores, and nDCG@10, (R,) each."""
    num_shown = min(NDCG_AT, scores.shape[1])
    top = scores.topk(min(num_shown + 1, scores.shape[1]), dim=1)  # one more, to see whether it ties with the last
    limits = top.values[:, num_shown - 1] - TIE
    is_tied = (top.values[:, num_shown:] >= limits[:, None]).any(dim=1).tolist()
    shown_of, found = top.indices[:, :num_shown].numpy(), np.empty(len(scores))
    for row in range(len(scores)):
        own = scores[row].numpy()
        shown = np.flatnonzero(own >= limits[row].item()) if is_tied[row] else shown_of[row]
        relevance = graded.of(start + row, shown)
        order = np.lexsort((relevance, TIE * relevance - own[shown]))[:num_shown]
        best = graded.best(start + row, num_shown)
        found[row] = relevance[order] @ _DISCOUNTS[:num_shown] / (best @ _DISCOUNTS[: len(best)])
    return top.values[:, 0], found


def _confidence(scores: Tensor, best: Tensor, similarity: Similarity) -> NDArray[np.float64]:
    """Return the probability, (R,), that the similarity gives to the best of the scores (R, C), which it overwrites."""
    if similarity.kind == "sigmoid":
        return torch.sigmoid(similarity.scale * best.double() + similarity.bias).numpy()
    behind = scores.sub_(best[:, None])  # (R, C), at most 0: no exponential overflows
    return 1 / behind.mul_(similarity.scale).exp_().sum(dim=1).double().numpy()
