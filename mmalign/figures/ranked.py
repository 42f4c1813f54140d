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
from mmalign.figures.retrieval import TIE, similarity_blocks
from mmalign_runtime.spec import Similarity

NDCG_AT = 10
_MOST_COUNTED = 16  # right answers that are counted ahead of one by one; a sort is quicker for more
_PARTS = 8  # parts of a row for each candidate shown
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
    num_right = np.array([len(columns) for columns in right])
    ranks, precision = np.empty(len(right)), np.empty(len(right))
    few = np.flatnonzero(num_right <= _MOST_COUNTED)
    if len(few):
        ranks[few], precision[few] = _precision_of_few(scores, few, [right[row] for row in few.tolist()])
    for row in np.flatnonzero(num_right > _MOST_COUNTED).tolist():
        own = np.sort(scores[row, right[row]])  # (P,)
        limits = own - np.float32(TIE)
        ahead, own_ahead = (len(each) - np.searchsorted(each, limits) for each in (np.sort(scores[row]), own))
        wrong, places = (ahead - own_ahead)[::-1], np.arange(1, len(own) + 1)  # best first
        ranks[row], precision[row] = wrong[0] + 1, (places / (places + wrong)).mean()
    return ranks, precision


def _precision_of_few(
    scores: NDArray[np.float32], rows: NDArray[np.int64], right: Sequence[NDArray[np.int64]]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the same of the rows that have few right answers: place by place, over all of them at once."""
    num_right = np.array([len(columns) for columns in right])
    is_there = np.arange(num_right.max()) < num_right[:, None]  # (R, P)
    own = np.full(is_there.shape, -np.inf, np.float32)
    own[is_there] = scores[np.repeat(rows, num_right), np.concatenate(right)]
    own = -np.sort(-own, axis=1)  # best first
    wrong = np.zeros(is_there.shape)
    for place in range(is_there.shape[1]):
        having = np.flatnonzero(is_there[:, place])
        limits = own[having, place] - np.float32(TIE)
        ahead = [np.count_nonzero(scores[row] >= limit) for row, limit in zip(rows[having], limits, strict=True)]
        wrong[having, place] = ahead - np.count_nonzero(own[having] >= limits[:, None], axis=1)
    places = np.arange(1, is_there.shape[1] + 1)
    shares = np.where(is_there, places / (places + wrong), 0)
    return wrong[:, 0] + 1, shares.sum(axis=1) / num_right


def _ndcg(start: int, scores: Tensor, graded: GradedRelevance) -> tuple[Tensor, NDArray[np.float64]]:
    """Return the best scores, and nDCG@10, (R,) each."""
    num_shown = min(NDCG_AT, scores.shape[1])
    # Those shown, those that tie with the last of them, and a few more, which stand behind.
    is_near = scores.numpy() >= _reached(scores, num_shown) - np.float32(TIE)
    rows, columns = np.divmod(np.flatnonzero(is_near), scores.shape[1])
    own, starts = scores.numpy()[rows, columns], np.searchsorted(rows, np.arange(len(scores)))
    relevance_to = graded.block(start, len(scores))
    relevance = relevance_to.of(rows, columns)
    order = np.lexsort((relevance, TIE * relevance - own, rows))
    shown = order[starts[:, None] + np.arange(num_shown)]  # (R, K)
    discounts = _DISCOUNTS[:num_shown]
    found = relevance[shown] @ discounts / (relevance_to.best(num_shown) @ discounts)
    return torch.from_numpy(np.maximum.reduceat(own, starts)), found


def _reached(scores: Tensor, count: int) -> NDArray[np.float32]:
    """Return for each row a score (R, 1) that at least `count` of its scores reach, and few more.

    From the highest of each of some parts: the `count` highest of all by `topk` take four times as long.
    """
    size = max(1, scores.shape[1] // (_PARTS * count))
    parts = scores[:, : scores.shape[1] // size * size].reshape(len(scores), -1, size)
    found: NDArray[np.float32] = parts.amax(dim=2).topk(count, dim=1).values[:, -1:].numpy()
    return found


def _confidence(scores: Tensor, best: Tensor, similarity: Similarity) -> NDArray[np.float64]:
    """Return the probability, (R,), that the similarity gives to the best of the scores (R, C), which it overwrites."""
    if similarity.kind == "sigmoid":
        return torch.sigmoid(similarity.scale * best.double() + similarity.bias).numpy()
    behind = scores.sub_(best[:, None])  # (R, C), at most 0: no exponential overflows
    return 1 / behind.mul_(similarity.scale).exp_().sum(dim=1).double().numpy()
