from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from mmalign.retrieval import Recall, chance_recall, recall
from tests.tolerances import CHANCE_SIMULATION


def naive_recall(similarity: list[list[float]], relevant: list[list[bool]]) -> Recall:
    """Rank by the book: sort each query's candidates, the wrong ones first among equals, and look for a right one."""
    ranks = []
    for scores, right in zip(similarity, relevant, strict=True):
        order = sorted(range(len(scores)), key=lambda c: (-scores[c], right[c]))
        ranks.append(1 + next(place for place, c in enumerate(order) if right[c]))
    at_1, at_5, at_10 = (sum(rank <= k for rank in ranks) / len(ranks) for k in (1, 5, 10))
    return Recall(at_1, at_5, at_10, float(np.median(ranks)))


def random_relevance(num_queries: int, num_candidates: int, seed: int) -> Tensor:
    relevant = torch.rand(num_queries, num_candidates, generator=torch.Generator().manual_seed(seed)) < 0.1
    relevant[torch.arange(num_queries), torch.arange(num_queries) % num_candidates] = True
    return relevant


@pytest.mark.parametrize("seed", range(5))
def test_equals_the_naive_ranking_with_several_right_answers_and_ties(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    similarity = torch.randint(0, 30, (23, 31), generator=generator) / 30  # coarse, so that many are equal
    relevant = random_relevance(23, 31, seed)
    assert recall(similarity, relevant) == naive_recall(similarity.tolist(), relevant.tolist())


def test_any_right_answer_counts_and_right_ones_do_not_push_each_other_down() -> None:
    similarity = torch.tensor([[0.9, 0.8, 0.7, 0.1]])
    found = recall(similarity, torch.tensor([[True, True, True, False]]))
    assert found == Recall(1.0, 1.0, 1.0, 1.0)


def test_a_constant_embedding_earns_nothing() -> None:
    relevant = torch.eye(30, dtype=torch.bool)
    assert recall(torch.ones(30, 30), relevant) == Recall(0.0, 0.0, 0.0, 30.0)


def test_query_without_a_right_answer_is_refused() -> None:
    with pytest.raises(ValueError, match="no right answer"):
        recall(torch.ones(2, 2), torch.tensor([[True, False], [False, False]]))


def test_nan_is_refused_and_does_not_rank_first() -> None:
    similarity = torch.full((3, 3), torch.nan)
    with pytest.raises(ValueError, match="NaN"):
        recall(similarity, torch.eye(3, dtype=torch.bool))


def test_chance_is_what_random_orders_give() -> None:
    relevant = random_relevance(6, 40, seed=3)
    generator = torch.Generator().manual_seed(0)
    many = relevant.repeat(4000, 1)  # (24000, 40)
    simulated = recall(torch.rand(many.shape, generator=generator), many)
    expected = chance_recall(relevant)
    for seen, wanted in zip(simulated.shares(), expected.shares(), strict=True):
        assert abs(seen - wanted) <= CHANCE_SIMULATION.bound
    assert abs(simulated.median_rank - expected.median_rank) <= 1


@pytest.mark.parametrize(("num_candidates", "num_right", "median"), [(4, 1, 2), (100, 1, 50), (3, 3, 1), (5, 4, 1)])
def test_chance_in_small_cases(num_candidates: int, num_right: int, median: float) -> None:
    relevant = torch.arange(num_candidates)[None] < num_right
    chance = chance_recall(relevant)
    assert chance.at_1 == pytest.approx(num_right / num_candidates)
    assert chance.at_10 == pytest.approx(min(1.0, 10 * num_right / num_candidates) if num_right == 1 else 1.0)
    assert chance.median_rank == median
