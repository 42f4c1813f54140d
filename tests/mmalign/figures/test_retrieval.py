from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from mmalign.figures import retrieval
from mmalign.figures.retrieval import Recall, Relevance, best_ranks, chance_recall, recall, recall_both_ways
from tests.mmalign.largest import Largest
from tests.tolerances import CHANCE_SIMULATION


def naive_recall(similarity: list[list[float]], relevant: list[list[bool]]) -> Recall:
    """Rank by the book: sort each query's candidates, the wrong ones first among equals, and look for a right one."""
    ranks = []
    for scores, right in zip(similarity, relevant, strict=True):
        order = sorted(range(len(scores)), key=lambda c: (-scores[c], right[c]))
        ranks.append(1 + next(place for place, c in enumerate(order) if right[c]))
    at_1, at_5, at_10 = (sum(rank <= k for rank in ranks) / len(ranks) for k in (1, 5, 10))
    return Recall(at_1, at_5, at_10, float(np.median(ranks)))


def labelled(relevant: Tensor) -> Relevance:
    """Return what a (Q, C) bool matrix says: each candidate has a label of its own."""
    return Relevance(
        [tuple(row.nonzero()[:, 0].tolist()) for row in relevant], [(column,) for column in range(relevant.shape[1])]
    )


def recall_of(similarity: Tensor, relevant: Tensor) -> Recall:
    """Return the recall of queries whose cosines with the candidates are `similarity` (Q, C)."""
    return recall(similarity, torch.eye(similarity.shape[1]), labelled(relevant))


def random_relevance(num_queries: int, num_candidates: int, seed: int) -> Tensor:
    relevant = torch.rand(num_queries, num_candidates, generator=torch.Generator().manual_seed(seed)) < 0.1
    relevant[torch.arange(num_queries), torch.arange(num_queries) % num_candidates] = True
    return relevant


@pytest.mark.parametrize("seed", range(5))
def test_equals_the_naive_ranking_with_several_right_answers_and_ties(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    similarity = torch.randint(0, 30, (23, 31), generator=generator) / 30  # coarse, so that many are equal
    relevant = random_relevance(23, 31, seed)
    assert recall_of(similarity, relevant) == naive_recall(similarity.tolist(), relevant.tolist())


def test_any_right_answer_counts_and_right_ones_do_not_push_each_other_down() -> None:
    similarity = torch.tensor([[0.9, 0.8, 0.7, 0.1]])
    found = recall_of(similarity, torch.tensor([[True, True, True, False]]))
    assert found == Recall(1.0, 1.0, 1.0, 1.0)


def test_a_constant_embedding_earns_nothing() -> None:
    relevant = torch.eye(30, dtype=torch.bool)
    assert recall_of(torch.ones(30, 30), relevant) == Recall(0.0, 0.0, 0.0, 30.0)


def test_query_without_a_right_answer_is_refused() -> None:
    with pytest.raises(ValueError, match="no right answer"):
        recall_of(torch.ones(2, 2), torch.tensor([[True, False], [False, False]]))


def test_nan_is_refused_and_does_not_rank_first() -> None:
    similarity = torch.full((3, 3), torch.nan)
    with pytest.raises(ValueError, match="a vector is not finite"):
        recall_of(similarity, torch.eye(3, dtype=torch.bool))


def test_chance_is_what_random_orders_give() -> None:
    relevant = random_relevance(6, 40, seed=3)
    generator = torch.Generator().manual_seed(0)
    many = relevant.repeat(4000, 1)  # (24000, 40)
    simulated = recall_of(torch.rand(many.shape, generator=generator), many)
    expected = chance_recall(labelled(relevant))
    for seen, wanted in zip(simulated.shares(), expected.shares(), strict=True):
        assert abs(seen - wanted) <= CHANCE_SIMULATION.bound
    assert abs(simulated.median_rank - expected.median_rank) <= 1


@pytest.mark.parametrize(("num_candidates", "num_right", "median"), [(4, 1, 2), (100, 1, 50), (3, 3, 1), (5, 4, 1)])
def test_chance_in_small_cases(num_candidates: int, num_right: int, median: float) -> None:
    relevant = torch.arange(num_candidates)[None] < num_right
    chance = chance_recall(labelled(relevant))
    assert chance.at_1 == pytest.approx(num_right / num_candidates)
    assert chance.at_10 == pytest.approx(min(1.0, 10 * num_right / num_candidates) if num_right == 1 else 1.0)
    assert chance.median_rank == median


def unit(num_rows: int, num_columns: int, seed: int) -> Tensor:
    return functional.normalize(
        torch.randn(num_rows, num_columns, generator=torch.Generator().manual_seed(seed)), dim=-1
    )


@pytest.mark.parametrize("num_cells", [1, 7, 40, 100_000])
def test_chunks_of_any_size_give_the_same_ranks(monkeypatch: pytest.MonkeyPatch, num_cells: int) -> None:
    queries, candidates, relevant = unit(23, 8, 1), unit(31, 8, 2), labelled(random_relevance(23, 31, 3))
    whole = best_ranks(queries, candidates, relevant)
    monkeypatch.setattr(retrieval, "_CHUNK_CELLS", num_cells)
    assert torch.equal(best_ranks(queries, candidates, relevant), whole)


def test_no_matrix_of_queries_by_candidates_is_held() -> None:
    num_items = 5000
    labels = [(item,) for item in range(num_items)]
    with Largest() as largest:
        recall_both_ways(unit(num_items, 4, 1), unit(num_items, 4, 2), Relevance(labels, labels))
    assert 4_000_000 < largest.numel <= 4_194_304 < num_items**2  # as few products as 16 MB of scores allow


@pytest.mark.parametrize(("behind", "rank"), [(0.9e-6, 2), (1.2e-6, 1)])
def test_scores_that_differ_by_rounding_alone_are_ties(behind: float, rank: int) -> None:
    similarity = torch.tensor([[0.5, 0.5 - behind]])
    ranks = best_ranks(similarity, torch.eye(2), Relevance([(0,)], [(0,), (1,)]))
    assert ranks.tolist() == [rank]


def test_labels_may_be_several_and_unknown_on_the_other_side() -> None:
    relevant = Relevance([(0, 1), (1,), (9, 2)], [(0,), (1,), (0, 1), (3,), (2,)])
    assert [relevant.right(query).tolist() for query in range(3)] == [[0, 1, 2], [1, 2], [4]]
    assert [relevant.reversed().right(query).tolist() for query in range(5)] == [[0], [0, 1], [0, 1], [], [2]]


def test_recall_of_no_queries_is_refused() -> None:
    with pytest.raises(ValueError, match="there are no queries"):
        recall(torch.empty(0, 4), torch.ones(3, 4), Relevance([], [(0,), (1,), (2,)]))


def test_queries_without_any_candidate_are_refused() -> None:
    with pytest.raises(ValueError, match="no right answer among the candidates"):
        best_ranks(torch.ones(2, 4), torch.empty(0, 4), Relevance([(0,), (1,)], []))


def test_nothing_asked_gives_no_ranks() -> None:
    assert best_ranks(torch.empty(0, 4), torch.ones(3, 4), Relevance([], [(0,), (1,), (2,)])).shape == (0,)


def test_a_recall_is_frozen_and_its_mean_is_of_the_three_shares() -> None:
    assert Recall(0.3, 0.6, 0.9, 7.0).mean() == pytest.approx(0.6)
    assert Recall.__struct_config__.frozen


def test_flags_are_counted_by_row_on_any_device() -> None:
    flags = torch.tensor([[True, True, False], [False, True, False]])
    on_cpu = SimpleNamespace(device=SimpleNamespace(type="cpu"), numpy=flags.numpy)
    elsewhere = SimpleNamespace(device=SimpleNamespace(type="cuda"), count_nonzero=flags.count_nonzero)
    for each in (flags, on_cpu, elsewhere):
        assert retrieval._count(each).tolist() == [2, 1]  # type: ignore[arg-type]


@pytest.mark.parametrize("wrong", [torch.nan, torch.inf, -torch.inf])
def test_one_component_that_is_not_finite_is_found(wrong: float) -> None:
    vectors = unit(50, 8, 1)
    assert retrieval.is_finite(vectors)
    vectors[17, 3] = wrong
    assert not retrieval.is_finite(vectors)
    vectors[20, 3] = -wrong
    assert not retrieval.is_finite(vectors)
