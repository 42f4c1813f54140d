from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from mmalign_runtime.errors import InputError, SpaceMismatchError
from mmalign_runtime.ranking import search
from mmalign_runtime.saved import SavedVectors


def saved(vectors: np.ndarray) -> SavedVectors:
    return SavedVectors(tuple(str(i) for i in range(len(vectors))), vectors.astype(np.float32), "space", "fp32-0")


def test_hits_are_ranked_by_score() -> None:
    vectors = saved(np.array([[0.6, 0.8], [1, 0], [0, 1]]))
    (hits,) = search(np.array([[1, 0]], np.float32), vectors, top_k=2, space_id="space")
    assert [(hit.id, hit.rank) for hit in hits] == [("1", 1), ("0", 2)]
    assert [hit.score for hit in hits] == pytest.approx([1.0, 0.6])


def test_equal_scores_come_in_saved_order_even_across_the_cut() -> None:
    vectors = saved(np.array([[0, 1], [1, 0], [0, 1], [0, 1], [0, 1]]))
    (hits,) = search(np.array([[0, 1]], np.float32), vectors, top_k=3, space_id="space")
    assert [hit.id for hit in hits] == ["0", "2", "3"]


# Small whole numbers: float32 products are exact in any order, so ties are ties.
WHOLE = st.integers(-3, 3).map(np.float32)


@settings(max_examples=50, deadline=None, derandomize=True)
@given(
    vectors=st.integers(1, 40).flatmap(lambda n: arrays(np.float32, (n, 3), elements=WHOLE)),
    query=arrays(np.float32, (2, 3), elements=WHOLE),
    top_k=st.integers(1, 50),
)
def test_search_agrees_with_sorting_everything(vectors: np.ndarray, query: np.ndarray, top_k: int) -> None:
    found = search(query, saved(vectors), top_k=top_k, space_id="space")
    for row, hits in zip(query, found, strict=True):
        by_score = sorted(range(len(vectors)), key=lambda i: (-float(np.dot(row, vectors[i])), i))
        assert [int(hit.id) for hit in hits] == by_score[:top_k]


def test_more_queries_than_one_block_are_all_answered() -> None:
    vectors = np.eye(3, dtype=np.float32)
    query = np.tile(vectors, (50, 1))
    found = search(query, saved(vectors), top_k=1, space_id="space")
    assert [hits[0].id for hits in found] == ["0", "1", "2"] * 50


def test_nothing_saved_gives_no_hits() -> None:
    assert search(np.ones((1, 2), np.float32), saved(np.empty((0, 2))), top_k=5, space_id="space") == ((),)


def test_vectors_of_another_space_are_refused() -> None:
    with pytest.raises(SpaceMismatchError, match=r"two spaces, other and space, .*run `mmalign embed` again"):
        search(np.ones((1, 2), np.float32), saved(np.eye(2)), top_k=1, space_id="other")


def test_a_query_of_another_length_is_refused() -> None:
    with pytest.raises(InputError, match=r"query has shape \(1, 3\), expected \(Q, 2\)"):
        search(np.ones((1, 3), np.float32), saved(np.eye(2)), top_k=1, space_id="space")


def test_top_k_below_one_is_refused() -> None:
    with pytest.raises(ValueError, match="top_k is 0"):
        search(np.ones((1, 2), np.float32), saved(np.eye(2)), top_k=0, space_id="space")


def test_a_second_stage_orders_the_nearest_and_equal_scores_keep_the_order_of_the_first() -> None:
    vectors = saved(np.array([[0.6, 0.8], [1, 0], [0.8, 0.6], [0, 1], [0.96, 0.28]]))
    asked: list[tuple[str, ...]] = []

    def stage(query: np.ndarray, ids: Sequence[str]) -> np.ndarray:
        assert query.tolist() == [1, 0]
        asked.append(tuple(ids))
        return np.array([0.1 if name == "1" else 0.5 for name in ids], np.float32)

    (hits,) = search(np.array([[1, 0]], np.float32), vectors, top_k=2, space_id="space", rerank=3, second_stage=stage)
    assert asked == [("1", "4", "2")]
    assert [(hit.id, hit.rank, hit.score) for hit in hits] == [("4", 1, 0.5), ("2", 2, 0.5)]
    (hits,) = search(np.array([[1, 0]], np.float32), vectors, top_k=5, space_id="space", rerank=9, second_stage=stage)
    assert [hit.id for hit in hits] == ["4", "2", "0", "3", "1"]  # fewer are saved than asked for
