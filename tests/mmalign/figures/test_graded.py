from __future__ import annotations

from itertools import product

import numpy as np
import pytest

from mmalign.figures.graded import GradedRelevance
from mmalign.figures.retrieval import Relevance

# Four concepts; the third caption is of two of them.
KEYWORDS = [frozenset(words.split()) for words in ("cat pet animal", "dog pet animal", "car wheel", "tree")]
RELEVANT = Relevance([(0,), (1,), (2,), (3,), (0, 2)], [(0,), (0,), (0, 1), (2,), (3,)])


def by_the_book(query: tuple[int, ...], candidate: tuple[int, ...]) -> float:
    if set(query) & set(candidate):
        return 1.0
    mine, its = (frozenset().union(*(KEYWORDS[label] for label in labels)) for labels in (query, candidate))
    return len(mine & its) / len(mine | its)


@pytest.mark.parametrize("is_reversed", [False, True])
def test_a_query_s_own_are_1_and_others_what_they_share(is_reversed: bool) -> None:
    relevant, graded = RELEVANT, GradedRelevance(RELEVANT, KEYWORDS)
    if is_reversed:
        relevant, graded = relevant.reversed(), graded.reversed()
    num_candidates = len(relevant.candidate_labels)
    whole = graded.block(0, len(relevant.query_labels))
    expected = np.array([by_the_book(*each) for each in product(relevant.query_labels, relevant.candidate_labels)])
    rows, columns = np.divmod(np.arange(len(expected)), num_candidates)
    np.testing.assert_allclose(whole.of(rows, columns), expected)
    best = -np.sort(-expected.reshape(-1, num_candidates), axis=1)
    for num_best in range(1, num_candidates + 1):
        np.testing.assert_allclose(whole.best(num_best), best[:, :num_best])


def test_a_block_counts_from_its_first_query() -> None:
    block = GradedRelevance(RELEVANT, KEYWORDS).block(1, 1)
    assert block.of(np.array([0, 0, 0]), np.array([0, 2, 3])).tolist() == [0.5, 1.0, 0.0]


def test_concepts_without_keywords_are_right_or_wrong() -> None:
    graded = GradedRelevance(Relevance([(0,)], [(0,), (1,)]), [frozenset(), frozenset()])
    assert graded.block(0, 1).of(np.array([0, 0]), np.array([0, 1])).tolist() == [1.0, 0.0]
