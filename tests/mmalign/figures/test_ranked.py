from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from mmalign.figures import ranked, retrieval
from mmalign.figures.graded import GradedRelevance
from mmalign.figures.ranked import Ranked, rank
from mmalign.figures.retrieval import Relevance, best_ranks
from mmalign_runtime.spec import Similarity
from tests.mmalign.largest import Largest

NUM_CONCEPTS = 12


def unit(num_rows: int, seed: int, num_columns: int = 8) -> Tensor:
    return functional.normalize(
        torch.randn(num_rows, num_columns, generator=torch.Generator().manual_seed(seed)), dim=-1
    )


@pytest.fixture
def graded() -> GradedRelevance:
    """19 queries and 31 candidates of twelve concepts, whose keywords are of ten words."""
    generator = np.random.default_rng(5)
    queries = [(int(i % NUM_CONCEPTS),) if i % 5 else (int(i % NUM_CONCEPTS), 11) for i in range(19)]
    candidates = [(int(i % NUM_CONCEPTS),) if i % 7 else (3, int(i % NUM_CONCEPTS)) for i in range(31)]
    words = [frozenset(f"word {w}" for w in generator.choice(10, size=generator.integers(1, 6))) for _ in range(12)]
    return GradedRelevance(Relevance([tuple(sorted(set(q))) for q in queries], candidates), words)


def by_the_book(
    scores: NDArray[np.float64], relevance: NDArray[np.float64], right: set[int]
) -> tuple[float, float, float]:
    """Return rank, average precision and nDCG@10 of one query: equals in the order that helps least."""
    order = sorted(range(len(scores)), key=lambda c: (-scores[c], relevance[c], c in right))
    places = [place for place, c in enumerate(order, start=1) if c in right]
    precision = sum(number / place for number, place in enumerate(places, start=1)) / len(places)
    gains = [relevance[c] / math.log2(1 + place) for place, c in enumerate(order[:10], start=1)]
    best = [value / math.log2(1 + place) for place, value in enumerate(sorted(relevance)[::-1][:10], start=1)]
    return places[0], precision, sum(gains) / sum(best)


def relevance_to(graded: GradedRelevance, query: int, num_candidates: int) -> NDArray[np.float64]:
    return graded.block(query, 1).of(np.zeros(num_candidates, np.int64), np.arange(num_candidates))


def held_to_the_book(found: Ranked, scores: Tensor, graded: GradedRelevance) -> None:
    expected = [
        by_the_book(row, relevance_to(graded, query, len(row)), set(graded.relevant.right(query).tolist()))
        for query, row in enumerate(scores.double().numpy())
    ]
    for name, values in zip(("ranks", "average_precision", "ndcg"), np.array(expected).T, strict=True):
        np.testing.assert_allclose(getattr(found, name), values, rtol=1e-9, err_msg=name)


@pytest.mark.parametrize("seed", range(3))
def test_equals_sorting_by_hand(graded: GradedRelevance, seed: int) -> None:
    queries, candidates = unit(19, seed), unit(31, 100 + seed)
    held_to_the_book(rank(queries, candidates, graded), queries @ candidates.T, graded)


@pytest.mark.parametrize("seed", range(3))
def test_ties_never_help(graded: GradedRelevance, seed: int) -> None:
    scores = torch.randint(0, 4, (19, 31), generator=torch.Generator().manual_seed(seed)) / 4
    held_to_the_book(rank(scores, torch.eye(31), graded), scores, graded)


@pytest.mark.parametrize("most_counted", [0, 2])
def test_many_right_answers_are_counted_as_few_are(
    graded: GradedRelevance, monkeypatch: pytest.MonkeyPatch, most_counted: int
) -> None:
    monkeypatch.setattr(ranked, "_MOST_COUNTED", most_counted)
    scores = torch.randint(0, 4, (19, 31), generator=torch.Generator().manual_seed(0)) / 4
    held_to_the_book(rank(scores, torch.eye(31), graded), scores, graded)


def test_ranks_are_those_of_recall(graded: GradedRelevance) -> None:
    queries, candidates = unit(19, 1), unit(31, 2)
    assert rank(queries, candidates, graded).ranks.tolist() == best_ranks(queries, candidates, graded.relevant).tolist()


def test_equals_scikit_learn(graded: GradedRelevance) -> None:
    metrics = pytest.importorskip("sklearn.metrics", reason="scikit-learn is not installed")
    queries, candidates = unit(19, 3), unit(31, 4)
    found, scores = rank(queries, candidates, graded), (queries @ candidates.T).numpy()
    relevance = np.stack([relevance_to(graded, query, 31) for query in range(19)])
    assert found.ndcg.mean() == pytest.approx(metrics.ndcg_score(relevance, scores, k=10))
    right = [np.isin(np.arange(31), graded.relevant.right(query)) for query in range(19)]
    precision = [metrics.average_precision_score(*each) for each in zip(right, scores, strict=True)]
    np.testing.assert_allclose(found.average_precision, precision)


def test_a_constant_embedding_earns_next_to_nothing() -> None:
    labels = [(item,) for item in range(40)]
    found = rank(torch.ones(40, 1), torch.ones(40, 1), GradedRelevance(Relevance(labels, labels), [frozenset()] * 40))
    assert set(found.ranks) == {40}
    assert set(found.average_precision) == {1 / 40}
    assert set(found.ndcg) == {0}


@pytest.mark.parametrize("num_cells", [1, 50, 200])
def test_blocks_of_any_size_give_the_same(
    graded: GradedRelevance, monkeypatch: pytest.MonkeyPatch, num_cells: int
) -> None:
    queries, candidates, similarity = unit(19, 1), unit(31, 2), Similarity(kind="softmax", scale=20.0)
    whole = rank(queries, candidates, graded, similarity)
    monkeypatch.setattr(retrieval, "_CHUNK_CELLS", num_cells)
    again = rank(queries, candidates, graded, similarity)
    assert whole.confidence is not None
    for name in ("ranks", "average_precision", "ndcg", "confidence"):
        np.testing.assert_allclose(getattr(again, name), getattr(whole, name), rtol=1e-5)


def test_confidence_is_the_softmax_or_the_sigmoid_of_the_nearest(graded: GradedRelevance) -> None:
    queries, candidates = unit(19, 1), unit(31, 2)
    cosines = (queries @ candidates.T).double().numpy()
    exp = np.exp(30 * cosines)
    softmax = rank(queries, candidates, graded, Similarity(kind="softmax", scale=30.0)).confidence
    np.testing.assert_allclose(softmax, (exp / exp.sum(axis=1, keepdims=True)).max(axis=1), rtol=1e-5)
    sigmoid = rank(queries, candidates, graded, Similarity(kind="sigmoid", scale=9.0, bias=-4.0)).confidence
    np.testing.assert_allclose(sigmoid, (1 / (1 + np.exp(4 - 9 * cosines))).max(axis=1), rtol=1e-5)


def test_no_matrix_of_queries_by_candidates_is_held() -> None:
    labels = [(item,) for item in range(5000)]
    graded = GradedRelevance(Relevance(labels, labels), [frozenset()] * 5000)
    with Largest() as largest:
        rank(unit(5000, 1, 4), unit(5000, 2, 4), graded, Similarity(kind="softmax", scale=10.0))
    assert largest.numel <= 4_194_304 < 5000**2
