"""Exact nearest neighbours among saved vectors, by one matrix product. An index for millions is not ours to build.

A second stage may put the nearest into another order.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

import msgspec
import numpy as np
from numpy.typing import NDArray

from mmalign_runtime.arguments import as_count
from mmalign_runtime.errors import InputError, SpaceMismatchError
from mmalign_runtime.prefixes import fix_of_dims
from mmalign_runtime.saved import SavedVectors

# Queries scored at once: bounds the (Q, N) scores held in memory, at 256 MB a million saved vectors.
_QUERY_BLOCK = 64


# A query's vector (D,) and the ids of C candidates -> their scores (C,), higher is nearer.
SecondStage: TypeAlias = Callable[[NDArray[np.float32], Sequence[str]], NDArray[np.float32]]


class Hit(msgspec.Struct, frozen=True):
    """One saved vector found: its `score` is the cosine with the query, or what a second stage gave it instead.

    Its `rank` counts from 1.
    """

    id: str
    score: float
    rank: int


def search(
    query: NDArray[np.float32],
    saved: SavedVectors,
    *,
    top_k: int,
    space_id: str,
    rerank: int = 0,
    second_stage: SecondStage | None = None,
) -> tuple[tuple[Hit, ...], ...]:
    """Return, for each query (Q, D), its `top_k` nearest saved vectors, best first; equal scores in saved order.

    Fewer than `top_k` when fewer are saved. With `rerank`, that many nearest vectors are scored by the `second_stage`
    (`mmalign_runtime.rerank`), and the best of them by those scores are returned.

    Raises SpaceMismatchError when `space_id`, the query's, is not the saved vectors' own, InputError when the lengths D
    differ, and ValueError for a `top_k` that is not a count, or a `rerank` below it or without a second stage.
    """
    if space_id != saved.space_id:
        fix = "run `mmalign embed` again, with the bundle that embeds the query."
        raise SpaceMismatchError(space_id, saved.space_id, fix_of_dims(space_id, saved.space_id) or fix)
    num_hits = as_count(top_k, "top_k")
    if query.ndim != 2 or query.shape[1] != saved.vectors.shape[1]:
        raise InputError(f"query has shape {query.shape}, expected (Q, {saved.vectors.shape[1]}). Embed it again.")
    num_nearest = _num_nearest(num_hits, rerank, second_stage)
    hits: list[tuple[Hit, ...]] = []
    for start in range(0, len(query), _QUERY_BLOCK):
        scores = query[start : start + _QUERY_BLOCK] @ saved.vectors.T  # (Q, N)
        hits += [_hits(row, saved.ids, num_nearest) for row in scores]
    if second_stage is None:
        return tuple(hits)
    return tuple(_reranked(row, found, second_stage)[:num_hits] for row, found in zip(query, hits, strict=True))


def _num_nearest(num_hits: int, rerank: int, second_stage: SecondStage | None) -> int:
    """Return how many the first stage is to find."""
    if (second_stage is None) != (rerank == 0):
        raise ValueError("rerank and second_stage go together. Give both, or neither.")
    if second_stage is None:
        return num_hits
    if as_count(rerank, "rerank") < num_hits:
        raise ValueError(f"rerank is {rerank}, below top_k, {num_hits}. Rerank as many as are returned, or more.")
    return rerank


def _reranked(query: NDArray[np.float32], found: tuple[Hit, ...], second_stage: SecondStage) -> tuple[Hit, ...]:
    """Return hits in the order of the second stage's scores; equal ones keep that of the first."""
    scores = second_stage(query, [hit.id for hit in found])  # (C,)
    order = np.argsort(-scores, kind="stable")
    return tuple(Hit(found[i].id, float(scores[i]), rank) for rank, i in enumerate(order, start=1))


def _hits(scores: NDArray[np.float32], ids: tuple[str, ...], top_k: int) -> tuple[Hit, ...]:
    positions = _top(scores, top_k)
    return tuple(Hit(ids[i], float(scores[i]), rank) for rank, i in enumerate(positions, start=1))


def _top(scores: NDArray[np.float32], top_k: int) -> NDArray[np.int64]:
    candidates = np.arange(len(scores))  # (N,)
    if top_k < len(scores):
        # A partition picks any of the scores that tie for the last place: keep them all, then cut.
        last = np.partition(scores, -top_k)[-top_k]
        candidates = np.flatnonzero(scores >= last)
    return candidates[np.argsort(-scores[candidates], kind="stable")[:top_k]]
